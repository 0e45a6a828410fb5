//! The door of disk images: the `bootloader` crate, started by a BIOS or by UEFI firmware.

use bootloader_api::config::Mapping;
use bootloader_api::{BootloaderConfig, entry_point};

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 128 * 1024;
    config.mappings.physical_memory = Some(Mapping::FixedAddress(0xffff_8000_0000_0000));
    config
};

entry_point!(start, config = &CONFIG);

fn start(_info: &'static mut bootloader_api::BootInfo) -> ! {
    crate::hello("bootloader");
}
