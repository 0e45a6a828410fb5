//! The programs: one file each, one line each in the table below.

mod hello;

/// A program of the collection.
pub struct Program {
    /// What it is called on the command line and in the transcript.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Where it may be run.
    pub on: Where,
    /// How long it may take, in seconds.
    pub seconds: u32,
    /// The program itself, run in a process of its own.
    pub run: fn(),
}

/// Where a program may be run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On any Linux as well.
    Everywhere,
    /// Only on Faultline: it would harm the machine, or says nothing that another kernel could be compared with.
    Faultline,
}

/// Declares the table: `name: where, seconds, "about"`, where the module `name` has a function `run`.
macro_rules! programs {
    ($($name:ident: $on:ident, $seconds:literal, $about:literal;)*) => {
        /// Every program, in the order in which `all` runs them.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: stringify!($name), about: $about, on: Where::$on, seconds: $seconds, run: $name::run,
        }),*];
    };
}

programs! {
    hello: Everywhere, 5, "one line, and the status";
}
