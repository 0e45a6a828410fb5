//! The simplest things that a program does: what the tests of `cargo xtask run` are made with.
//!
//! | words | does |
//! | --- | --- |
//! | `hello` | a line on each output |
//! | `args ..` | its arguments, one a line |
//! | `env` | its environment, one a line |
//! | `cwd` | its working directory |
//! | `cat` | copies standard input to standard output |
//! | `first` | copies the first line of standard input and leaves the rest |
//! | `show PATH` | mode and content of a file |
//! | `exit N`, `signal N` | ends so |
//! | `load ADDRESS` | loads a byte from there |
//! | `hang` | never ends |
//! | `call N` | a system call without arguments, and what it answers |
#![expect(unsafe_code, reason = "signals, wild loads and system calls by number")]

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use guest_tests::sys;

/// Does what `words` say.
pub fn run(words: &[&str]) -> ExitCode {
    match words {
        ["hello"] => {
            println!("hello");
            eprintln!("hello, error");
        }
        ["args", args @ ..] => args.iter().for_each(|arg| println!("{arg:?}")),
        ["env"] => std::env::vars().for_each(|(key, value)| println!("{key}={value}")),
        ["cwd"] => println!("{}", std::env::current_dir().expect("it has one").display()),
        ["cat"] => {
            io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).expect("both streams work");
        }
        ["first"] => {
            let mut byte = [0];
            while byte != *b"\n" && io::stdin().read(&mut byte).expect("standard input can be read") > 0 {
                io::stdout()
                    .write_all(&byte)
                    .expect("standard output can be written");
            }
        }
        ["show", path] => {
            let mode = std::fs::metadata(path)
                .expect("the file is there")
                .permissions()
                .mode();
            print!(
                "{mode:o} {}",
                std::fs::read_to_string(path).expect("the file can be read")
            );
        }
        ["exit", status] => return ExitCode::from(number(status) as u8),
        ["signal", signal] => {
            // SAFETY: a signal to this process, which is what is wanted.
            unsafe { libc::raise(number(signal) as i32) };
        }
        ["load", address] => {
            let address = number(address) as *const u8;
            // SAFETY: none; that it is a fault is what is wanted.
            println!("{}", unsafe { address.read_volatile() });
        }
        ["hang"] => loop {
            std::hint::spin_loop();
        },
        ["call", call] => match sys::call(number(call) as i64, &[]) {
            Ok(answer) => println!("{answer}"),
            Err(errno) => println!("{errno}"),
        },
        _ => {
            eprintln!("plain: {words:?}: see the table in its source");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn number(word: &str) -> u64 {
    word.parse().expect("it is a number")
}
