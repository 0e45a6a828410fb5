//! Hands the image's linker script to the linker: the guest is laid out like it.
use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../kernel.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for every build script");
        println!("cargo:rustc-link-arg-bins=-T{dir}/../kernel.ld");
        println!("cargo:rustc-link-arg-bins=--build-id=none");
    }
}
