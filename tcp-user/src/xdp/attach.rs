//! Attaching the program to its interface, and what stands in the way.

use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};

use super::error::errno;
use super::{LoadOptions, XdpError, XdpMode};

/// How the program was attached in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the kernel's stack, on socket buffers.
    Generic,
    /// As `xtcp load` had attached it.
    Adopted,
}

/// What holds the program to the interface.
#[derive(Debug)]
pub(super) enum Attachment {
    /// Nothing yet, or nothing any more.
    None,
    /// The pinned link of `xtcp load` will be made to run our program.
    ToAdopt,
    /// Our own link; closing it detaches the program.
    Own(XdpLink),
    /// A link that stays when we are gone.
    Pinned,
}

impl Attachment {
    pub(super) fn new(adopt: bool) -> Self {
        if adopt { Attachment::ToAdopt } else { Attachment::None }
    }

    /// Attaches `program`, through the link pinned at `pin` if that is to be adopted.
    pub(super) fn attach(
        &mut self,
        program: &mut Xdp,
        options: &LoadOptions,
        pin: &Path,
    ) -> Result<Attached, XdpError> {
        if matches!(self, Attachment::ToAdopt) {
            adopt(program, options, pin)?;
            *self = Attachment::Pinned;
            return Ok(Attached::Adopted);
        }
        let (link, attached) = attach_anew(program, options)?;
        *self = Attachment::Own(link);
        Ok(attached)
    }

    /// Lets the link outlive us under `pin`.
    pub(super) fn pin(&mut self, pin: &Path) -> Result<(), XdpError> {
        if let Attachment::Own(link) = std::mem::replace(self, Attachment::Pinned) {
            let pin_error = |source| XdpError::Pin { path: pin.to_owned(), source };
            let link: FdLink = link.try_into().map_err(|error| pin_error(Box::new(error)))?;
            link.pin(pin).map_err(|error| pin_error(Box::new(error)))?;
        }
        Ok(())
    }

    /// Detaches the program; `false`: the link is to stay, and the program with it.
    pub(super) fn detach(&mut self) -> bool {
        if matches!(self, Attachment::Own(_)) {
            *self = Attachment::None;
        }
        matches!(self, Attachment::None)
    }
}

/// Makes the pinned link run our program instead of the one it has; no frame is missed.
fn adopt(program: &mut Xdp, options: &LoadOptions, pin: &Path) -> Result<(), XdpError> {
    let link_error = |source| XdpError::Link { path: pin.to_owned(), source };
    let link = FdLink::from(PinnedLink::from_pin(pin).map_err(link_error)?);
    let link = link.try_into().map_err(link_error)?;
    let id = program.attach_to_link(link).map_err(|source| attach_error(options, source))?;
    // The pin holds the link; our descriptor is not needed.
    program.take_link(id).map(drop).map_err(|source| attach_error(options, source))
}

fn attach_anew(program: &mut Xdp, options: &LoadOptions) -> Result<(XdpLink, Attached), XdpError> {
    let mut attach = |mode| {
        let id = program.attach_to_if_index(options.interface_index, mode)?;
        program.take_link(id)
    };
    let native = |link| (link, Attached::Native);
    let generic = |link| (link, Attached::Generic);
    let attached = match options.mode {
        XdpMode::Native => attach(AyaMode::Driver).map(native),
        XdpMode::Generic => attach(AyaMode::Skb).map(generic),
        XdpMode::Auto => match attach(AyaMode::Driver) {
            Err(error) if errno(&error) == Some(libc::EOPNOTSUPP) => attach(AyaMode::Skb).map(generic),
            attached => attached.map(native),
        },
    };
    attached.map_err(|source| attach_error(options, source))
}

fn attach_error(options: &LoadOptions, source: ProgramError) -> XdpError {
    let interface = options.interface_name.clone();
    match errno(&source) {
        Some(libc::EPERM) => XdpError::NoPrivilege { doing: format!("attach an XDP program to {interface}") },
        Some(libc::EBUSY | libc::EEXIST) => XdpError::OtherProgram { interface },
        Some(libc::ERANGE) => XdpError::MtuTooLarge { interface },
        Some(libc::ENOSPC) => XdpError::TooFewQueues { interface },
        Some(libc::EOPNOTSUPP) => XdpError::NoNativeXdp { interface },
        _ => XdpError::Attach { interface, source: source.into() },
    }
}
