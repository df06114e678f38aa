//! Handles the messages of QEMU (vhost-user, "Front-end message types") by changing the device.

use std::fs::File;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use virtio_queue::QueueT;

use crate::vhost_user::config_space;
use crate::vhost_user::device::Device;
use crate::vhost_user::inflight::{InflightRegion, QueueLayout};
use crate::vhost_user::memory::MemoryTable;
use crate::vhost_user::vring::{MAX_QUEUE, Vring};

/// Wraps an error of this crate for the crate `vhost`, which then ends the connection.
fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}

fn unsupported<T>(what: &'static str) -> Result<T> {
    Err(Error::InvalidOperation(what))
}

/// Makes a notification descriptor non-blocking, so that it cannot block the device's thread.
fn nonblocking(file: Option<File>) -> Result<Option<File>> {
    if let Some(file) = &file {
        let flags = fcntl_getfl(file).map_err(refused)?;
        fcntl_setfl(file, flags | OFlags::NONBLOCK).map_err(refused)?;
    }
    Ok(file)
}

impl Device {
    /// The number of a ring, checked against the number of rings.
    fn index(&self, index: u32) -> Result<usize> {
        let index = index as usize;
        (index < self.rings.len()).then_some(index).ok_or(Error::InvalidParam)
    }

    fn ring(&mut self, index: u32) -> Result<&mut Vring> {
        let index = self.index(index)?;
        Ok(&mut self.rings[index])
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_rings();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset_rings();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered() != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        self.log.enable(features & VhostUserVirtioFeatures::LOG_ALL.bits() != 0);
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.memory = Some(MemoryTable::map(regions, files, &self.log).map_err(refused)?);
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        let ring = self.ring(index)?;
        if ring.run_number().is_some() {
            return unsupported("a started ring keeps its size");
        }
        ring.queue.try_set_size(size).map_err(refused)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        // Writes to the used ring are logged by guest address, as all writes are, so `log` is not needed.
        let table = self.memory.as_ref().ok_or(Error::InvalidParam)?;
        let find = |address| table.guest_address(address).ok_or(Error::InvalidParam);
        let (descriptor, used, available) = (find(descriptor)?, find(used)?, find(available)?);
        let queue = &mut self.ring(index)?.queue;
        queue.try_set_desc_table_address(descriptor).map_err(refused)?;
        queue.try_set_used_ring_address(used).map_err(refused)?;
        queue.try_set_avail_ring_address(available).map_err(refused)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        let ring = self.ring(index)?;
        if ring.run_number().is_some() {
            return unsupported("a started ring keeps its position");
        }
        ring.queue.set_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let ring = self.index(index)?;
        let base = self.drain_ring(ring).map_err(refused)?;
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let Some(file) = nonblocking(fd)? else {
            return unsupported("a ring without a kick descriptor would have to be polled");
        };
        let index = self.index(u32::from(index))?;
        // Closing the old descriptor removes it from epoll only if QEMU has closed its copy, too. So it is removed
        // first.
        self.close_kick(index);
        self.rings[index].kick = Some(file);
        self.start_ring(index).map_err(refused)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = nonblocking(fd)?;
        let ring = self.ring(u32::from(index))?;
        ring.call = call;
        if ring.run_number().is_some() {
            ring.signal(); // the notification of an answer may have gone to the old descriptor
        }
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let err = nonblocking(fd)?;
        self.ring(u32::from(index))?.err = err;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(config_space::protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        match features & !config_space::protocol_features().bits() {
            0 => Ok(()),
            _ => Err(Error::FeatureMismatch),
        }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.rings.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let index = self.index(index)?;
        self.rings[index].enabled = enable;
        self.serve_ring(index).map_err(refused)
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let queues = self.rings.len() as u16;
        let offset = offset as usize;
        Ok(config_space::read(self.capacity, queues, offset..offset.saturating_add(size as usize)))
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        unsupported("no field of the configuration can be written: CONFIG_WCE was not offered")
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        unsupported("this is not a GPU")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        unsupported("there are no shared objects")
    }

    fn get_inflight_fd(&mut self, inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (queues, size) = (inflight.num_queues, inflight.queue_size);
        if usize::from(queues) > self.rings.len() || size > MAX_QUEUE {
            return Err(Error::InvalidParam);
        }
        InflightRegion::create(QueueLayout { queues, queue_size: size }).map_err(refused)
    }

    fn set_inflight_fd(&mut self, inflight: &VhostUserInflight, file: File) -> Result<()> {
        if inflight.queue_size > MAX_QUEUE {
            return Err(Error::InvalidParam);
        }
        self.inflight = Some(InflightRegion::open(inflight, file).map_err(refused)?);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unsupported("memory slots are not negotiated")
    }

    // The requests below belong to features that this device does not offer, so all of them are refused.

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _fd: File,
        _postcopy_listening: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        unsupported("memory slots are not negotiated")
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> Result<()> {
        unsupported("memory slots are not negotiated")
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        unsupported("the device has no state beyond its rings")
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported("the device has no state beyond its rings")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported("there is no shared memory")
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        self.log.set_base(log, file).map_err(refused)
    }
}
