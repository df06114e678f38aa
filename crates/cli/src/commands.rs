//! Runs each command as requests to the node.

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

/// The body of a request that carries none.
const NO_BODY: Option<&()> = None;

/// Runs one command.
///
/// # Errors
///
/// The refusal of the node as [`dyad_api::ApiError`]; otherwise a sentence about the connection or a local file.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { node, json, config, command } = arguments;
    let mut client = Client::new(&node, config)?;
    match command {
        Command::Status => {
            let status: StatusReply = client.get("status")?;
            print::show(json, &status, print::status)
        }
        Command::Login => {
            let password = password()?;
            let LoginReply { token } = client.post("login", &LoginRequest { password })?;
            client.keep_token(Some(token))
        }
        Command::Logout => {
            let ended = client.act(Method::POST, "logout", NO_BODY);
            client.keep_token(None)?;
            ended
        }
        Command::Timeline { since } => {
            let timeline: TimelineReply = client.get(&format!("timeline?since={since}"))?;
            print::show(json, &timeline, print::timeline)
        }
        Command::PairingCode => {
            let code: PairingCodeReply = client.post("pairing-code", &())?;
            print::show(json, &code, |code| println!("{} (for {} minutes)", code.code, code.expires_s / 60))
        }
        Command::Witness(Witness::Add { address, code }) => {
            client.act(Method::POST, "witness", Some(&WitnessRequest { address, code }))
        }
        Command::Watchdog(Watchdog::Prove) => {
            client.act(Method::POST, "watchdog/prove", NO_BODY)?;
            if !json {
                println!("The node restarts now: ask \"dyad status\" in a minute whether its watchdog is proven.");
            }
            Ok(())
        }
        Command::Setup { seed } => setup::run(&mut client, &seed),
        Command::Volume(command) => volume(&mut client, json, command),
        Command::Vm(command) => vm(&mut client, json, command),
        Command::Erase { confirm, disk } => {
            let confirm = confirm.unwrap_or_default();
            match disk {
                Some(disk) => client.act(Method::POST, "setup/erase-disk", Some(&EraseDiskRequest { disk, confirm })),
                None => client.act(Method::POST, "erase", Some(&EraseRequest { confirm })),
            }
        }
        Command::Forget => client.forget(),
    }
}

fn volume(client: &mut Client, json: bool, command: Volume) -> anyhow::Result<()> {
    match command {
        Volume::List => {
            let volumes: Vec<VolumeView> = client.get("volumes")?;
            print::show(json, &volumes, |volumes| print::volumes(volumes))
        }
        Volume::Create { name, size } => {
            let volume: VolumeView = client.post("volumes", &CreateVolume { name, size })?;
            print::show(json, &volume, |volume| print::volumes(std::slice::from_ref(volume)))
        }
        Volume::Import { name, file, create } => {
            let image = import(client, &name, &file, create)?;
            print::show(json, &image, |image| println!("{} bytes, SHA-256 {}", image.bytes, image.sha256))
        }
        Volume::Delete { name } => client.act(Method::DELETE, &format!("volumes/{}", segment(&name)), NO_BODY),
    }
}

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
    client.put(&format!("volumes/{}/content?sha256={}", segment(name), hex::encode(hash.finalize())), &file)
}

fn vm(client: &mut Client, json: bool, command: Vm) -> anyhow::Result<()> {
    let mut act = |name: &str, what: &str| client.act(Method::POST, &format!("vms/{}/{what}", segment(name)), NO_BODY);
    match command {
        Vm::Start { name } => act(&name, "start"),
        Vm::Stop { name } => act(&name, "stop"),
        Vm::Kill { name } => act(&name, "kill"),
        Vm::Delete { name } => client.act(Method::DELETE, &format!("vms/{}", segment(&name)), NO_BODY),
        Vm::List => {
            let vms: Vec<VmView> = client.get("vms")?;
            print::show(json, &vms, |vms| print::vms(vms))
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
            print::show(json, &vm, |vm| print::vms(std::slice::from_ref(vm)))
        }
        Vm::Log { name, follow } => {
            let mut text = client.stream(&format!("vms/{}/serial/log?follow={}", segment(&name), u8::from(follow)))?;
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

/// A name as one segment of a path, percent-encoded. An invalid name must reach the node, which refuses it.
fn segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn password() -> anyhow::Result<String> {
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
    fn a_name_stays_one_segment() {
        assert_eq!(super::segment("web-1"), "web-1");
        assert_eq!(super::segment("../x?y"), "..%2Fx%3Fy");
    }
}
