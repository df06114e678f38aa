//! A cable between the nodes that can lose part of the frames, as a firewall or a broken switch on the way does.
//!
//! Each end of the cable sends its frames, one in each datagram, to a port of the relay, which passes them to the other end.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;

/// TCP port of the data sessions between the nodes (`docs/formats.md`).
const DATA_PORT: u16 = 7402;
/// Bytes of the largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Offsets in an Ethernet frame without a VLAN tag: the type, and the first byte of the packet in it.
const ETHERTYPE_AT: usize = 12;
const PACKET_AT: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER_BYTES: usize = 40;
const TCP: u8 = 6;

/// A cable that passes through the rig. Its threads end with the rig.
#[derive(Debug, Clone)]
pub struct CableRelay {
    /// The ports to which node A and node B send.
    ports: [u16; 2],
    loses_data: Arc<AtomicBool>,
}

impl CableRelay {
    /// Lays a cable between nodes that receive at these ports of this machine.
    ///
    /// # Errors
    /// This machine has no free port.
    pub fn new(ends: [u16; 2]) -> Result<Self> {
        let loses_data = Arc::new(AtomicBool::new(false));
        let mut ports = [0; 2];
        for (port, other_end) in ports.iter_mut().zip([ends[1], ends[0]]) {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            *port = socket.local_addr()?.port();
            let loses_data = loses_data.clone();
            thread::spawn(move || pass_frames(&socket, SocketAddr::from(([127, 0, 0, 1], other_end)), &loses_data));
        }
        Ok(Self { ports, loses_data })
    }

    /// The port to which this end sends; 0 = node A, 1 = node B.
    pub fn port(&self, end: usize) -> u16 {
        self.ports[end]
    }

    /// Loses the frames of the data sessions from now on, in both directions, or passes them again. Heartbeats pass.
    pub fn set_data_lost(&self, lost: bool) {
        self.loses_data.store(lost, Ordering::Relaxed);
    }
}

fn pass_frames(socket: &UdpSocket, other_end: SocketAddr, loses_data: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    // The socket is not connected, so a node that is off causes no error.
    while let Ok(bytes) = socket.recv(&mut buffer) {
        let frame = &buffer[..bytes];
        if loses_data.load(Ordering::Relaxed) && is_data_frame(frame) {
            continue;
        }
        // A frame that does not arrive is lost, as on any cable.
        let _ = socket.send_to(frame, other_end);
    }
}

/// Whether the frame is part of a TCP connection from or to [`DATA_PORT`].
fn is_data_frame(frame: &[u8]) -> bool {
    let byte = |at: usize| frame.get(at).copied().unwrap_or_default();
    let (protocol, segment_at) = match frame.get(ETHERTYPE_AT..PACKET_AT) {
        Some(kind) if kind == IPV6 => (byte(PACKET_AT + 6), PACKET_AT + IPV6_HEADER_BYTES),
        Some(kind) if kind == IPV4 => (byte(PACKET_AT + 9), PACKET_AT + usize::from(byte(PACKET_AT) & 0xf) * 4),
        _ => return false,
    };
    let port = |at: usize| u16::from_be_bytes([byte(at), byte(at + 1)]);
    protocol == TCP && [port(segment_at), port(segment_at + 2)].contains(&DATA_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv6_frame(protocol: u8, from: u16, to: u16) -> Vec<u8> {
        let mut frame = vec![0; PACKET_AT + IPV6_HEADER_BYTES + 20];
        frame[ETHERTYPE_AT..PACKET_AT].copy_from_slice(&IPV6);
        frame[PACKET_AT + 6] = protocol;
        frame[PACKET_AT + IPV6_HEADER_BYTES..][..2].copy_from_slice(&from.to_be_bytes());
        frame[PACKET_AT + IPV6_HEADER_BYTES + 2..][..2].copy_from_slice(&to.to_be_bytes());
        frame
    }

    #[test]
    fn only_frames_of_data_sessions_are_data_frames() {
        assert!(
            is_data_frame(&ipv6_frame(TCP, 40_000, DATA_PORT)) && is_data_frame(&ipv6_frame(TCP, DATA_PORT, 40_000))
        );
        assert!(!is_data_frame(&ipv6_frame(TCP, 40_000, 7403)) && !is_data_frame(&ipv6_frame(17, 7401, DATA_PORT)));
        let mut ipv4 = vec![0; 60];
        ipv4[ETHERTYPE_AT..PACKET_AT].copy_from_slice(&IPV4);
        (ipv4[PACKET_AT], ipv4[PACKET_AT + 9]) = (0x45, TCP);
        ipv4[PACKET_AT + 22..][..2].copy_from_slice(&DATA_PORT.to_be_bytes());
        assert!(is_data_frame(&ipv4));
        assert!(!is_data_frame(&[]) && !is_data_frame(&ipv4[..PACKET_AT + 10]));
    }

    #[test]
    fn a_relay_passes_other_frames_and_loses_data_only_while_it_shall() {
        let ends = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        for end in &ends {
            end.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        }
        let relay = CableRelay::new([0, 1].map(|end: usize| ends[end].local_addr().unwrap().port())).unwrap();
        let data = ipv6_frame(TCP, 40_000, DATA_PORT);
        let heartbeat = ipv6_frame(17, 7401, 7401);
        let receive = |end: usize| {
            let mut buffer = [0; 2048];
            let bytes = ends[end].recv(&mut buffer).unwrap();
            buffer[..bytes].to_vec()
        };
        for (from, to) in [(0, 1), (1, 0)] {
            let send = |frame: &[u8]| ends[from].send_to(frame, ("127.0.0.1", relay.port(from))).unwrap();
            send(&data);
            assert_eq!(receive(to), data);
            relay.set_data_lost(true);
            send(&data);
            send(&heartbeat);
            assert_eq!(receive(to), heartbeat, "the data frame before it was lost");
            relay.set_data_lost(false);
        }
    }
}
