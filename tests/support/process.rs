//! Programs that a test starts, and that never outlive it.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// Runs a program and kills it when standard input ends: the test process holds the other end, so that it ends
/// however that process ends, by SIGKILL too.
const GUARD: &str = r#"
exec 3<&0 </dev/null
log=$1; shift
"$@" >>"$log" 2>&1 3<&- &
program=$!
echo $program
exec >/dev/null
( read -r _ <&3; kill -9 $program ) 2>/dev/null &
guard=$!
exec 3<&-
wait $program; code=$?
kill $guard 2>/dev/null
exit $code
"#;

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Program {
    guard: Child,
    pid: Pid,
    log: PathBuf,
}

impl Program {
    /// Starts `program`; what it prints is added to the file `log`.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, &OsStr)],
        log: &Path,
    ) -> io::Result<Self> {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(log)
            .arg(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = guard.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process id"))?;
        Ok(Self { guard, pid, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal. One that has ended already does not mind.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// How it ended, if it has. By a signal: 128 + its number.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        // not `Child::wait`, which would close its standard input first: that kills
        loop {
            if let Some(status) = self.guard.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// The last `lines` lines that it printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
