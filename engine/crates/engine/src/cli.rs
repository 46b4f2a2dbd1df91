//! The command line: `sdlb-engine --socket PATH [--workers N] [--take-over PATH]`.

use std::{num::NonZeroUsize, path::PathBuf, thread::available_parallelism};

use crate::control::Options;

/// What `--help` prints.
pub const HELP: &str = "\
sdlb-engine: moves the bytes under an sdlb node. Usually started by `sdlb node`.

usage: sdlb-engine --socket PATH [--workers N] [--take-over PATH]

  --socket PATH   the control socket to create (mode 0600, in a folder of the same user)
  --workers N     the number of worker threads (default: one per core)
  --take-over PATH
                  hot restart: create this socket and receive the listening sockets of a running engine on it; exits
                  when none arrive within 10 s, or when control does not configure it within 30 s
  --version       print the version
  --help          print this

Signals: SIGTERM drains the engine for at most 30 s, then it exits; SIGHUP reopens the access log.
";

/// What to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Run the engine.
    Run(Options),
    /// Print and end.
    Print(String),
}

const WORKERS_MAX: usize = 1024;

/// Reads the arguments behind the program's name.
///
/// # Errors
/// One line: what is wrong and what was expected.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let (mut socket, mut workers, mut take_over) = (None, None, None);
    while let Some(argument) = arguments.next() {
        let (name, joined) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || {
            joined
                .clone()
                .or_else(|| arguments.next())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Print(HELP.to_owned())),
            "--version" => return Ok(Command::Print(format!("sdlb-engine {}\n", env!("CARGO_PKG_VERSION")))),
            "--socket" => socket = Some(PathBuf::from(value()?)),
            "--take-over" => take_over = Some(PathBuf::from(value()?)),
            "--workers" => {
                let text = value()?;
                let number = text.parse().ok().filter(|number| (1..=WORKERS_MAX).contains(number));
                workers =
                    Some(number.ok_or_else(|| format!("--workers {text}: expected a number from 1 to {WORKERS_MAX}"))?);
            }
            _ => return Err(format!("unknown argument {name:?} (see --help)")),
        }
    }
    let socket = socket.ok_or("--socket PATH is missing (see --help)")?;
    let workers = workers.unwrap_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get));
    Ok(Command::Run(Options { socket, workers, take_over }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_in_both_spellings() {
        for line in ["--socket /run/e.sock --workers 3", "--workers=3 --socket=/run/e.sock"] {
            let Ok(Command::Run(options)) = read(line) else { panic!("{line} is refused") };
            assert_eq!((options.socket, options.workers), ("/run/e.sock".into(), 3));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, told) in [
            ("", "--socket PATH is missing"),
            ("--socket /a --take-over", "--take-over needs a value"),
            ("--socket", "--socket needs a value"),
            ("--socket /a --workers 0", "expected a number"),
            ("--socket /a --workers many", "expected a number"),
            ("--sokcet /a", "unknown argument \"--sokcet\""),
            ("/a", "unknown argument"),
        ] {
            assert!(read(line).is_err_and(|error| error.contains(told)), "{line}");
        }
    }
}
