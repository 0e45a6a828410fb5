//! Tests that run inside the image, on the real machine: what the host's software machine cannot show.
//!
//! A test returns an error that says what is wrong; [`ensure!`] makes one. It is registered under its module path:
//!
//! ```ignore
//! kernel_test!(fn ramdisk_is_readable() -> Result<(), String> { ... });
//! ```
//!
//! A test leaves the machine as it found it: frames, areas and tasks that it made are gone when it returns.

use alloc::string::String;

use linkme::distributed_slice;

mod common;
mod drivers;
pub mod guests;
mod layout;
mod machine;
mod memory;
mod monitors;
mod move_pages;
mod negotiated;
mod objects;
mod tasks;
mod user_mode;
mod userfault;
mod waiting;

/// A test.
pub struct KernelTest {
    /// Module path and function name.
    path: &'static str,
    /// The test itself.
    pub run: fn() -> Result<(), String>,
}

impl KernelTest {
    /// A test at `path`, as [`kernel_test!`] spells it.
    pub const fn new(path: &'static str, run: fn() -> Result<(), String>) -> Self {
        Self { path, run }
    }

    /// Its name: the path below this module.
    pub fn name(&self) -> &'static str {
        self.path
            .split_once("ktest::")
            .map_or(self.path, |(_, name)| name)
    }
}

/// All tests of the image.
#[distributed_slice]
pub static KERNEL_TESTS: [KernelTest];

/// Registers functions as tests of the image.
#[macro_export]
macro_rules! kernel_test {
    ($(#[$attr:meta])* fn $name:ident() -> Result<(), String> $body:block) => {
        $(#[$attr])*
        fn $name() -> Result<(), String> {
            #[linkme::distributed_slice($crate::ktest::KERNEL_TESTS)]
            #[expect(unsafe_code, reason = "an entry of a registry names its section")]
            static TEST: $crate::ktest::KernelTest =
                $crate::ktest::KernelTest::new(concat!(module_path!(), "::", stringify!($name)), $name);
            $body
        }
    };
}

/// Ends a test with an error unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(alloc::format!($($message)+));
        }
    };
}
