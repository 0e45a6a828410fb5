//! Small parts that this binary plays after exec: `guest-tests role NAME ARG..`.

use std::process::{Command, ExitCode, Stdio};

use guest_tests::sys;
use guest_tests::transcript::say;

/// Plays a part.
pub fn play(words: &[&str]) -> ExitCode {
    match words {
        ["exit", status] => ExitCode::from(status.parse::<u8>().unwrap_or(99)),
        // Until its standard input ends.
        ["wait"] => {
            while sys::read(0, &mut [0; 16]).is_ok_and(|count| count > 0) {}
            ExitCode::SUCCESS
        }
        ["say", words @ ..] => {
            for word in words {
                say(format_args!("argument {word}"));
            }
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(98),
    }
}

/// Runs this binary in a part, with vfork and exec as libc has them, and says how it ended.
pub fn spawn_and_wait(words: &[&str]) -> String {
    let spawned = Command::new("/proc/self/exe")
        .arg("role")
        .args(words)
        .stdin(Stdio::null())
        .status();
    match spawned.map(|status| status.code()) {
        Ok(Some(code)) => format!("exit {code}"),
        Ok(None) => "signal".into(),
        Err(error) => error.to_string(),
    }
}
