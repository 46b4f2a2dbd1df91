//! Threads that the engine cannot do without.
//!
//! A fault in one connection ends its task and nothing else (the runtime catches it; `faults_total`). A fault in what a thread
//! itself does would end the thread, and nobody would know: its sockets would still be bound, and clients wait in them for
//! ever. So the process ends, at once and with a word about it, and control starts the next one.

use std::{
    any::Any,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    thread,
};

/// Starts a thread that must not end by a panic.
///
/// # Errors
/// Those of the system.
pub fn spawn(
    name: String,
    stack_bytes: Option<usize>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let mut builder = thread::Builder::new().name(name.clone());
    if let Some(bytes) = stack_bytes {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(move || {
        run_or(run, |why| end(&name, why));
    })
}

/// A task of a worker that must not end by a panic: who accepts connections, sees to its memory or its pools.
pub async fn task<T>(name: &'static str, run: impl Future<Output = T>) -> T {
    let mut run = pin!(run);
    poll_fn(|cx| {
        let mut polled = Poll::Pending;
        run_or(|| polled = run.as_mut().poll(cx), |why| end(name, why));
        polled
    })
    .await
}

fn end(name: &str, why: &str) {
    eprintln!("sdlb-engine: {name} has failed: {why}; the engine exits and control starts a new one");
    std::process::abort();
}

/// Runs it; a panic is handed on.
fn run_or(run: impl FnOnce(), failed: impl FnOnce(&str)) {
    // What was half changed is not looked at any more: the process ends.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        failed(text_of(&*panic));
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(run: impl FnOnce()) -> Option<String> {
        let mut told = None;
        run_or(run, |why| told = Some(why.to_owned()));
        told
    }

    #[test]
    fn a_panic_is_told_and_an_end_is_not() {
        assert_eq!(told(|| {}), None);
        assert_eq!(told(|| panic!("a word")).as_deref(), Some("a word"));
        assert_eq!(told(|| panic!("number {}", 7)).as_deref(), Some("number 7"));
        assert_eq!(told(|| std::panic::panic_any(7)).as_deref(), Some("no reason given"));
    }

    #[test]
    fn a_runtime_whose_main_future_panics_is_told_of() {
        let main = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async { panic!("in the loop of a worker") });
        };
        assert_eq!(told(main).as_deref(), Some("in the loop of a worker"));
    }

    #[test]
    fn a_task_that_does_not_fail_gives_what_it_has() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let waits = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(runtime.block_on(task("a task", waits)), 7);
    }

    #[test]
    fn a_thread_that_ends_well_is_joined() {
        let thread = spawn("worker-7".to_owned(), None, || {}).expect("a thread");
        assert!(thread.join().is_ok());
    }
}
