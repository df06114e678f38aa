//! Access to the registers of PCI devices by the two ports that all PCs have.

use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use x86_64::instructions::port::Port;

use crate::dma::Services;

const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;

/// The ports 0xcf8 and 0xcfc.
#[derive(Debug)]
pub struct ConfigurationPorts;

impl ConfigurationPorts {
    fn select(function: DeviceFunction, register: u8) {
        let place =
            u32::from(function.bus) << 16 | u32::from(function.device) << 11 | u32::from(function.function) << 8;
        // SAFETY: the port only selects what the other one accesses.
        unsafe { Port::new(ADDRESS_PORT).write(1 << 31 | place | u32::from(register & 0xfc)) }
    }
}

impl ConfigurationAccess for ConfigurationPorts {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        Self::select(function, register);
        // SAFETY: reading a register of a PCI device has no effect on memory.
        unsafe { Port::new(DATA_PORT).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, value: u32) {
        Self::select(function, register);
        // SAFETY: the library writes the command register and probes the sizes of regions, as the standard says.
        unsafe { Port::new(DATA_PORT).write(value) }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// The first virtio disk of the first bus, with its memory and its access to memory enabled.
pub fn find_disk() -> Option<PciTransport> {
    let mut root = PciRoot::new(ConfigurationPorts);
    let is_disk = |info| virtio_device_type(&info) == Some(DeviceType::Block);
    let (function, _) = root.enumerate_bus(0).find(|(_, info)| is_disk(info.clone()))?;
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
    PciTransport::new::<Services, _>(&mut root, function).ok()
}
