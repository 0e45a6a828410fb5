//! The bare-metal image.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bootloader;
#[cfg(target_os = "none")]
mod pvh;

#[cfg(target_os = "none")]
fn hello(door: &str) -> ! {
    use x86_64::instructions::port::Port;
    #[expect(unsafe_code)]
    unsafe {
        for byte in b"faultline: entered by ".iter().chain(door.as_bytes()).chain(b"\n") {
            Port::<u8>::new(0x3f8).write(*byte);
        }
        Port::<u32>::new(0xf4).write(0x10);
    }
    loop {
        x86_64::instructions::hlt();
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    hello("panic");
}

/// On any other target there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is the bare-metal image; build and run it with `cargo xtask qemu`.");
}
