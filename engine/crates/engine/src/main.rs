//! `sdlb-engine`: see `sdlb-engine --help`.

use std::process::ExitCode;

use sdlb_engine::{
    cli::{self, Command},
    control,
};

/// A third less time for memory than the system's own, with many small objects a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args().skip(1)) {
        Err(error) => {
            eprintln!("sdlb-engine: {error}");
            ExitCode::from(2)
        }
        Ok(Command::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Run(options)) => match control::run(&options) {
            // What is still open past the deadline ends with the process.
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sdlb-engine: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
