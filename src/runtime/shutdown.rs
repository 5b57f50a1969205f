//! Signals: the first asks for an orderly end, the second ends at once.

use std::{io, process};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens for SIGTERM and SIGINT from now on.
///
/// The first one cancels the returned token. The second exits the process with 128 + its number,
/// as a shell reports a process that a signal ended, so that nothing can hang an impatient user.
///
/// # Errors
///
/// When the process may not install signal handlers. Must be called inside a tokio runtime.
#[expect(clippy::disallowed_methods, reason = "the second signal asks for an end without any order")]
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first.name, "stopping; a second signal exits at once");
        cancelled.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second.name, "exiting at once");
        process::exit(128 + second.number);
    });
    Ok(stop)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

struct Received {
    name: &'static str,
    number: i32,
}

impl Signals {
    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received { name: "SIGTERM", number: SignalKind::terminate().as_raw_value() },
            _ = self.interrupt.recv() => Received { name: "SIGINT", number: SignalKind::interrupt().as_raw_value() },
        }
    }
}
