//! Small parts that this binary plays after exec: `guest-tests role NAME ARG..`.

use std::process::{Command, ExitCode, Stdio};

use guest_tests::signal;
use guest_tests::sys::{self, call};
use guest_tests::transcript::{ok, say};

/// Plays a part.
pub fn play(words: &[&str]) -> ExitCode {
    match words {
        ["exit", status] => return ExitCode::from(status.parse::<u8>().unwrap_or(99)),
        // Until its standard input ends.
        ["wait"] => while sys::read(0, &mut [0; 16]).is_ok_and(|count| count > 0) {},
        ["say", words @ ..] => {
            for word in words {
                say(format_args!("argument {word:?}"));
            }
        }
        ["length", word] => say(format_args!("argument of {} bytes", word.len())),
        ["count", words @ ..] => say(format_args!("{} arguments", words.len())),
        ["environment"] => {
            for (key, value) in std::env::vars() {
                say(format_args!("{key} is {value:?}"));
            }
        }
        ["descriptor", number] => {
            let number = number.parse().unwrap_or(-1);
            say(format_args!(
                "descriptor: {}",
                ok(sys::fcntl(number, libc::F_GETFD, 0))
            ));
        }
        ["signals"] => signals(),
        ["threads"] => {
            let tasks = std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count());
            let first = call(libc::SYS_gettid, &[]) == call(libc::SYS_getpid, &[]);
            say(format_args!("threads {tasks}, this is the first: {first}"));
        }
        ["auxv"] => auxiliary_vector(),
        // A script: its path, and what it was called with.
        [path, status] if path.starts_with('/') => return ExitCode::from(status.parse::<u8>().unwrap_or(99)),
        _ => return ExitCode::from(98),
    }
    ExitCode::SUCCESS
}

/// Which signals came through exec in which state.
fn signals() {
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        let mut action = [0usize; 4];
        let _ = call(
            libc::SYS_rt_sigaction,
            &[signal as usize, 0, action.as_mut_ptr() as usize, 8],
        );
        let state = ["default", "ignored"].get(action[0]).unwrap_or(&"handled");
        say(format_args!("{} is {state}", signal::name(signal)));
    }
    say(format_args!(
        "mask {:#x}",
        signal::mask(libc::SIG_BLOCK, 0).unwrap_or(0)
    ));
}

/// The entries that are the same on every machine of a kind, and whether the others make sense.
fn auxiliary_vector() {
    let text = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let words: Vec<u64> = text
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8])))
        .collect();
    let entry = |kind: u64| {
        words
            .chunks_exact(2)
            .find(|pair| pair[0] == kind)
            .map(|pair| pair[1])
    };
    for (name, kind) in [
        ("PHENT", 4),
        ("PAGESZ", 6),
        ("CLKTCK", 17),
        ("UID", 11),
        ("EUID", 12),
        ("GID", 13),
        ("EGID", 14),
        ("SECURE", 23),
    ] {
        say(format_args!("auxv {name}: {:?}", entry(kind)));
    }
    for (name, kind) in [
        ("PHDR", 3),
        ("ENTRY", 9),
        ("RANDOM", 25),
        ("EXECFN", 31),
        ("PLATFORM", 15),
    ] {
        let readable = entry(kind).is_some_and(|at| {
            matches!(
                guest_tests::touch::peek(at as usize),
                guest_tests::touch::Touch::Byte(_)
            )
        });
        say(format_args!("auxv {name}: points into memory: {readable}"));
    }
    say(format_args!(
        "auxv ends: {}",
        words.chunks_exact(2).any(|pair| pair[0] == 0)
    ));
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
