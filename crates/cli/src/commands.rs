//! The commands: each sends requests to the node and prints the reply.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::Path,
};

use anyhow::Context;
use dyad_api::{
    CreateVm, CreateVolume, EraseDiskRequest, EraseRequest, FirmwareView, ImportReply, LoginReply, LoginRequest,
    PairingCodeReply, StatusReply, TimelineReply, VmView, VolumeView, WitnessRequest,
};
use dyad_types::MIB;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sha2::{Digest, Sha256};
use ureq::http::Method;

use crate::{
    arguments::{Arguments, Command, Firmware, Vm, Volume, Watchdog, Witness},
    client::Client,
    print, setup,
};

/// The absent body of a request, with a type that `send_without_content` takes.
const NO_BODY: Option<&()> = None;

/// Runs the command of the command line.
///
/// # Errors
///
/// The node refuses, which gives its [`dyad_api::ApiError`]; or the connection or a local file fails.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { node, json, config, command } = arguments;
    let mut client = Client::new(&node, config)?;
    match command {
        Command::Status => {
            let status: StatusReply = client.get("status")?;
            print::print(json, &status, print::status)
        }
        Command::Login => {
            let password = read_password()?;
            let LoginReply { token } = client.post("login", &LoginRequest { password })?;
            client.store_token(Some(token))
        }
        Command::Logout => {
            let ended = client.send_without_content(Method::POST, "logout", NO_BODY);
            client.store_token(None)?;
            ended
        }
        Command::Timeline { since } => {
            let timeline: TimelineReply = client.get(&format!("timeline?since={since}"))?;
            print::print(json, &timeline, print::timeline)
        }
        Command::PairingCode => {
            let code: PairingCodeReply = client.post("pairing-code", &())?;
            print::print(json, &code, |code| println!("{} (for {} minutes)", code.code, code.expires_s / 60))
        }
        Command::Witness(Witness::Add { address, code }) => {
            client.send_without_content(Method::POST, "witness", Some(&WitnessRequest { address, code }))
        }
        Command::Watchdog(Watchdog::Prove) => {
            client.send_without_content(Method::POST, "watchdog/prove", NO_BODY)?;
            if !json {
                println!(
                    "The node restarts now: run \"dyad status\" in a minute, which says whether the watchdog is proven."
                );
            }
            Ok(())
        }
        Command::Setup { seed } => setup::run(&mut client, &seed),
        Command::Volume(command) => volume(&mut client, json, command),
        Command::Vm(command) => vm(&mut client, json, command),
        Command::Erase { confirm, disk } => {
            let confirm = confirm.unwrap_or_default();
            match disk {
                Some(disk) => client.send_without_content(
                    Method::POST,
                    "setup/erase-disk",
                    Some(&EraseDiskRequest { disk, confirm }),
                ),
                None => client.send_without_content(Method::POST, "erase", Some(&EraseRequest { confirm })),
            }
        }
        Command::Forget => client.forget(),
    }
}

fn volume(client: &mut Client, json: bool, command: Volume) -> anyhow::Result<()> {
    match command {
        Volume::List => {
            let volumes: Vec<VolumeView> = client.get("volumes")?;
            print::print(json, &volumes, |volumes| print::volumes(volumes))
        }
        Volume::Create { name, size } => {
            let volume: VolumeView = client.post("volumes", &CreateVolume { name, size })?;
            print::print(json, &volume, |volume| print::volumes(std::slice::from_ref(volume)))
        }
        Volume::Import { name, file, create } => {
            let image = import(client, &name, &file, create)?;
            print::print(json, &image, |image| println!("{} bytes, SHA-256 {}", image.bytes, image.sha256))
        }
        Volume::Delete { name } => {
            client.send_without_content(Method::DELETE, &format!("volumes/{}", encode_segment(&name)), NO_BODY)
        }
    }
}

/// Reads the file once for its length and checksum, and then sends it.
fn import(client: &mut Client, name: &str, path: &Path, create: bool) -> anyhow::Result<ImportReply> {
    let failed = || format!("{} cannot be read", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(failed)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
    if create {
        let request = CreateVolume { name: name.to_owned(), size: bytes.next_multiple_of(MIB).max(MIB) };
        let _: VolumeView = client.post("volumes", &request)?;
    }
    let file = File::open(path).with_context(failed)?;
    client.put(&format!("volumes/{}/content?sha256={}", encode_segment(name), hex::encode(hash.finalize())), &file)
}

fn vm(client: &mut Client, json: bool, command: Vm) -> anyhow::Result<()> {
    let mut post_action = |name: &str, action: &str| {
        client.send_without_content(Method::POST, &format!("vms/{}/{action}", encode_segment(name)), NO_BODY)
    };
    match command {
        Vm::Start { name } => post_action(&name, "start"),
        Vm::Stop { name } => post_action(&name, "stop"),
        Vm::Kill { name } => post_action(&name, "kill"),
        Vm::Delete { name } => {
            client.send_without_content(Method::DELETE, &format!("vms/{}", encode_segment(&name)), NO_BODY)
        }
        Vm::List => {
            let vms: Vec<VmView> = client.get("vms")?;
            print::print(json, &vms, |vms| print::vms(vms))
        }
        Vm::Create { name, cpus, memory, disks, firmware, on, priority, stopped, no_ha } => {
            let request = CreateVm {
                name,
                cpus,
                memory_mib: memory,
                firmware: match firmware {
                    Firmware::Bios => FirmwareView::Bios,
                    Firmware::Uefi => FirmwareView::Uefi,
                },
                disks,
                node: on,
                start: !stopped,
                priority,
                ha: !no_ha,
            };
            let vm: VmView = client.post("vms", &request)?;
            print::print(json, &vm, |vm| print::vms(std::slice::from_ref(vm)))
        }
        Vm::Log { name, follow } => {
            let mut text =
                client.stream(&format!("vms/{}/serial/log?follow={}", encode_segment(&name), u8::from(follow)))?;
            let mut out = io::stdout().lock();
            let mut buffer = [0; 4096];
            loop {
                let n = text.read(&mut buffer).context("the node ended the connection")?;
                if n == 0 {
                    return Ok(());
                }
                out.write_all(&buffer[..n])?;
                out.flush()?;
            }
        }
    }
}

/// Encodes a name as one segment of a URL path. Invalid names are encoded too, so that the node refuses them with its
/// sentence.
fn encode_segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The password from `DYAD_PASSWORD`, else from standard input; a terminal does not echo it.
fn read_password() -> anyhow::Result<String> {
    if let Ok(password) = std::env::var("DYAD_PASSWORD") {
        return Ok(password);
    }
    let input = io::stdin();
    let terminal = input.is_terminal();
    let before = if terminal { Some(tcgetattr(&input)?) } else { None };
    if let Some(before) = &before {
        eprint!("Password: ");
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Now, &hidden)?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(before) = &before {
        tcsetattr(&input, OptionalActions::Now, before)?;
        eprintln!();
    }
    read.context("the password could not be read")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_with_slashes_stays_one_path_segment() {
        assert_eq!(super::encode_segment("web-1"), "web-1");
        assert_eq!(super::encode_segment("../x?y"), "..%2Fx%3Fy");
    }
}
