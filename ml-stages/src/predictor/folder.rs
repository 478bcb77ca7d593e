//! A Predictor as a folder: written whole or not at all, and checked when it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mainstem_engine::{Error, Result};
use mainstem_transforms::FittedPreprocess;
use sha2::{Digest, Sha256};

use super::golden::{Expected, from_ipc};
use super::manifest::{FORMAT_VERSION, Manifest};
use super::{Core, Features, GOLDEN_FILE, MODEL_FILE, PREPROCESS_FILE, Predictor};
use crate::onnx::{Backend, InferenceBackend};

const MANIFEST_FILE: &str = "manifest.json";

impl Predictor {
    /// Writes the Predictor as `folder`, replacing a Predictor that is there.
    ///
    /// All files are written beside `folder` and then renamed, so a reader sees the old Predictor, the
    /// new one, or for an instant none, but never half of one.
    ///
    /// # Errors
    /// An environment error if `folder` holds something else than a Predictor, or cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        check_replaceable(folder)?;
        let cannot = |e: std::io::Error| {
            Error::environment(format!("the Predictor {folder:?} cannot be written"))
                .with_detail(e.to_string())
                .with_source(e)
        };
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(cannot)?;
        let work = tempfile::Builder::new()
            .prefix(".predictor-")
            .tempdir_in(parent)
            .map_err(cannot)?;
        let new = work.path().join("new");
        self.write_files(&new).map_err(cannot)?;
        let old = work.path().join("old");
        if folder.exists() {
            fs::rename(folder, &old).map_err(cannot)?;
        }
        fs::rename(&new, folder).map_err(|e| {
            // The old Predictor goes back; if even that fails, the first failure says more.
            let _ = fs::rename(&old, folder);
            cannot(e)
        })
    }

    fn write_files(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir(folder)?;
        for (name, bytes) in &self.core.files {
            write_synced(&folder.join(name), bytes)?;
        }
        let mut manifest = serde_json::to_vec_pretty(&*self.manifest)?;
        manifest.push(b'\n');
        write_synced(&folder.join(MANIFEST_FILE), &manifest)
    }

    /// Reads a Predictor, checks the hash of each file, and replays the golden rows on `backend`.
    ///
    /// # Errors
    /// An environment error if there is none or if it is of a later format; a data error if a file has
    /// changed, or if a golden row has other features (bit by bit) or another score (by more than
    /// [`SCORE_TOLERANCE`](super::SCORE_TOLERANCE)) than when it was saved.
    pub fn load(folder: &Path, backend: Backend) -> Result<Predictor> {
        Self::load_on(folder, || backend.resolve())
    }

    /// [`Predictor::load`] on a back-end of the caller's own, such as one for a device or one that measures
    /// another.
    ///
    /// # Errors
    /// Those of [`Predictor::load`]; the golden rows are replayed on this back-end too.
    pub fn load_with(folder: &Path, backend: Arc<dyn InferenceBackend>) -> Result<Predictor> {
        Self::load_on(folder, || Ok(backend))
    }

    /// Reads the folder before the back-end is looked for.
    fn load_on(
        folder: &Path,
        backend: impl FnOnce() -> Result<Arc<dyn InferenceBackend>>,
    ) -> Result<Predictor> {
        let manifest = read_manifest(folder)?;
        let mut files = BTreeMap::new();
        for (name, expected) in &manifest.files {
            files.insert(name.clone(), read_checked(folder, name, expected)?);
        }
        for name in [PREPROCESS_FILE, MODEL_FILE, GOLDEN_FILE] {
            if !files.contains_key(name) {
                return Err(Error::data(format!(
                    "the manifest of the Predictor {folder:?} does not name {name:?}"
                )));
            }
        }
        let fitted: FittedPreprocess = serde_json::from_slice(&files[PREPROCESS_FILE])?;
        let golden = from_ipc(&files[GOLDEN_FILE])?;
        let predictor = Predictor {
            manifest: Arc::new(manifest),
            core: Arc::new(Core {
                fitted,
                golden,
                files,
                backend: backend()?,
                idle: Mutex::default(),
            }),
        };
        predictor
            .replay()
            .map_err(|e| e.with_detail(format!("The Predictor is {folder:?}.")))?;
        Ok(predictor)
    }

    fn replay(&self) -> Result<()> {
        let layout = self.fitted().layout();
        if layout != &self.manifest.layout {
            return Err(Error::data(
                "the manifest has another layout than the preprocessing",
            ));
        }
        let expected = Expected::of(self.golden(), layout)?;
        let features = Features::of(self.fitted(), self.golden())?;
        expected.check_features(&features, layout)?;
        let scores = self.session()?.scores(features.values())?;
        expected.check_scores(
            &scores,
            self.manifest.golden.score_floor,
            &self.backend_name(),
        )
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn read_manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST_FILE);
    let bytes = fs::read(&path).map_err(|e| {
        let error = if e.kind() == ErrorKind::NotFound {
            Error::environment(format!("there is no Predictor in {folder:?}"))
                .with_hint("Name a folder that `Predictor::save` has written.")
        } else {
            Error::environment(format!("the file {path:?} cannot be read"))
        };
        error.with_detail(e.to_string()).with_source(e)
    })?;
    let refused = |e: serde_json::Error| {
        Error::data(format!(
            "the file {path:?} is not the manifest of a Predictor"
        ))
        .with_detail(e.to_string())
        .with_source(e)
    };
    let raw: serde_json::Value = serde_json::from_slice(&bytes).map_err(refused)?;
    let version = raw
        .get("format_version")
        .and_then(serde_json::Value::as_u64);
    match version {
        Some(version) if version != u64::from(FORMAT_VERSION) => Err(Error::environment(format!(
            "the Predictor {folder:?} is of format {version}, this release reads format {FORMAT_VERSION}"
        ))
        .with_hint("Read it with the release that wrote it, named in its manifest.")),
        _ => serde_json::from_value(raw).map_err(refused),
    }
}

fn read_checked(folder: &Path, name: &str, expected: &str) -> Result<Vec<u8>> {
    if Path::new(name).components().count() != 1 || name.starts_with('.') {
        return Err(Error::data(format!(
            "the manifest of the Predictor {folder:?} names {name:?}, which is no file of it"
        )));
    }
    let bytes = fs::read(folder.join(name)).map_err(|e| {
        Error::environment(format!(
            "the file {name:?} of the Predictor {folder:?} cannot be read"
        ))
        .with_detail(e.to_string())
        .with_source(e)
    })?;
    let found = sha256(&bytes);
    if found == expected {
        return Ok(bytes);
    }
    Err(Error::data(format!(
        "the file {name:?} of the Predictor {folder:?} has changed since it was saved"
    ))
    .with_detail(format!("Its SHA-256 is {found}, expected {expected}."))
    .with_hint("Copy the folder again, or save the Predictor anew."))
}

/// Checks that nothing but a Predictor would be replaced.
fn check_replaceable(folder: &Path) -> Result<()> {
    let is_free = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == ErrorKind::NotFound,
    };
    if is_free || read_manifest_loosely(&folder.join(MANIFEST_FILE)) {
        return Ok(());
    }
    Err(
        Error::environment(format!("{folder:?} is there and is not a Predictor"))
            .with_hint("Name another folder, or remove it first."),
    )
}

/// True if the file is the manifest of a Predictor of any format.
fn read_manifest_loosely(path: &PathBuf) -> bool {
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    serde_json::from_slice::<serde_json::Value>(&bytes)
        .is_ok_and(|v| v.get("format_version").is_some() && v.get("files").is_some())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
