//! Fetches the pinned release of ONNX Runtime into our cache folder, with pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mainstem_engine::{Error, Result};
use sha2::{Digest, Sha256};

use super::library::{PINNED_VERSION, cached_library, interpreters, pinned_file_name};

/// A wheel on PyPI: what pip is asked for, and the hash of what must come.
struct Wheel {
    platform: &'static str,
    sha256: &'static str,
}

/// The wheel for this machine. Any Python version's wheel holds the same library.
fn pinned_wheel() -> Result<Wheel> {
    let (platform, sha256) = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => (
            "manylinux_2_28_x86_64",
            "0f9b4ae77f8e3c9bee50c27bc1beede83f786fe1d52e99ac85aa8d65a01e9b77",
        ),
        ("linux", "aarch64") => (
            "manylinux_2_28_aarch64",
            "76ff670550dc23e58ea9bc53b5149b99a44e63b34b524f7b8547469aaa0dcb8c",
        ),
        ("macos", "aarch64") => (
            "macosx_13_0_arm64",
            "b8f029a6b98d3cf5be564d52802bb50a8489ab73409fa9db0bf583eabb7c2321",
        ),
        (os, arch) => {
            return Err(Error::environment(format!(
                "no release of ONNX Runtime is pinned for {os} on {arch}"
            ))
            .with_hint(
                "Install its library and name it by ORT_DYLIB_PATH, or use the embedded back-end.",
            ));
        }
    };
    Ok(Wheel { platform, sha256 })
}

/// The library in our cache folder, fetched if it is not there.
///
/// # Errors
/// An environment error without Python and pip, without network, without a home folder, or if what came
/// is not the pinned wheel.
pub(crate) fn install() -> Result<PathBuf> {
    let library = cached_library().ok_or_else(|| {
        Error::environment("there is no cache folder")
            .with_hint("Set XDG_CACHE_HOME or HOME to a folder that can be written to.")
    })?;
    if library.is_file() {
        return Ok(library);
    }
    let folder = library
        .parent()
        .ok_or_else(|| Error::bug("the cached library has no folder"))?;
    fs::create_dir_all(folder).map_err(|e| cannot_write(folder, &e))?;
    let work = tempfile::tempdir_in(folder).map_err(|e| cannot_write(folder, &e))?;
    let python = interpreters().into_iter().next().ok_or_else(|| {
        Error::environment("Python is not on PATH, and ONNX Runtime is fetched with its pip")
            .with_hint("Install Python 3 with pip, name the library by ORT_DYLIB_PATH, or use the embedded back-end.")
    })?;
    let wheel = download(&python, work.path())?;
    unpack(&python, &wheel, work.path())?;
    // A rename within one folder: another process sees the whole library or none.
    fs::rename(work.path().join(pinned_file_name()), &library)
        .map_err(|e| cannot_write(folder, &e))?;
    Ok(library)
}

fn download(python: &Path, into: &Path) -> Result<PathBuf> {
    let wheel = pinned_wheel()?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    pip.args([
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        "3.12",
    ]);
    pip.args(["--platform", wheel.platform, "--dest"]).arg(into);
    pip.arg(format!("onnxruntime=={PINNED_VERSION}"));
    run(pip, "pip could not fetch ONNX Runtime")?;
    let file = fs::read_dir(into)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| Error::environment("pip fetched no wheel of ONNX Runtime"))?;
    let found = hex::encode(Sha256::digest(fs::read(&file)?));
    if found != wheel.sha256 {
        return Err(
            Error::environment("the wheel that pip fetched is not the pinned one")
                .with_detail(format!(
                    "Its SHA-256 is {found}, expected {}.",
                    wheel.sha256
                ))
                .with_hint("Check the package index that pip uses."),
        );
    }
    Ok(file)
}

/// Takes the library alone out of the wheel, which is a zip file.
fn unpack(python: &Path, wheel: &Path, into: &Path) -> Result<()> {
    let program = "import sys, zipfile, shutil\n\
        with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as i, open(sys.argv[3], 'wb') as o:\n    \
        shutil.copyfileobj(i, o)";
    let name = pinned_file_name();
    let mut unzip = Command::new(python);
    unzip.args(["-c", program]).arg(wheel);
    unzip.arg(format!("onnxruntime/capi/{name}"));
    unzip.arg(into.join(&name));
    run(unzip, "the wheel of ONNX Runtime could not be unpacked")
}

fn run(mut command: Command, failure: &str) -> Result<()> {
    let output = command.output().map_err(|e| {
        Error::environment(failure)
            .with_detail(e.to_string())
            .with_source(e)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(4).collect();
    let mut error = Error::environment(failure)
        .with_hint("Name a library by ORT_DYLIB_PATH, or use the embedded back-end.");
    for line in last.into_iter().rev() {
        error = error.with_detail(line.to_owned());
    }
    Err(error)
}

fn cannot_write(folder: &Path, cause: &std::io::Error) -> Error {
    Error::environment(format!(
        "the cache folder {:?} cannot be written to",
        folder.display()
    ))
    .with_detail(cause.to_string())
    .with_hint("Set XDG_CACHE_HOME to a folder that can be written to.")
}
