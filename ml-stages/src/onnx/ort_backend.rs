//! ONNX Runtime as a back-end, loaded from a library at run time.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mainstem_engine::{Error, Result};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorRef};

use super::backend::{InferenceBackend, InferenceSession, TensorOut, TensorValuesRef, TensorView};
use super::{install, library};

/// ONNX Runtime, whose library is looked for on this machine and never fetched unasked.
///
/// A process holds one library: the first that was found stays. Cloning is cheap.
#[derive(Clone)]
pub struct OnnxRuntime {
    loaded: Arc<Loaded>,
}

struct Loaded {
    library: PathBuf,
    environment: Environment,
}

static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// Loads the library: that of `ORT_DYLIB_PATH`, else from our cache folder, an installed Python
    /// package `onnxruntime`, or the system's library folders.
    ///
    /// # Errors
    /// An environment error if there is none, or none of release 1.17 or later.
    pub fn find() -> Result<Self> {
        let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*slot {
            return Ok(runtime.clone());
        }
        if let Some(library) = library::named_by_user() {
            let runtime = Self::load_library(&library).map_err(|e| {
                e.with_hint("ORT_DYLIB_PATH names it: correct the path, or unset the variable.")
            })?;
            return Ok(slot.insert(runtime).clone());
        }
        let mut refused = Vec::new();
        for library in library::candidates() {
            match Self::load_library(&library) {
                Ok(runtime) => return Ok(slot.insert(runtime).clone()),
                Err(error) => refused.push(error),
            }
        }
        let none = Error::environment("ONNX Runtime's library is not on this machine")
            .with_hint("Call `OnnxRuntime::install()`, run `pip install onnxruntime`, or use the embedded back-end.");
        Err(refused.iter().fold(none, |error, e| {
            error.with_detail(format!("Tried: {}.", e.message()))
        }))
    }

    /// [`OnnxRuntime::find`], and if there is none, fetches the pinned release into our cache folder
    /// with pip, checks its hash and loads it.
    ///
    /// The cache folder is `mainstem/` in `XDG_CACHE_HOME`, or in `.cache` of the home folder.
    ///
    /// # Errors
    /// An environment error without Python and pip, without network, or if what came is not the pinned file.
    pub fn install() -> Result<Self> {
        if let Ok(runtime) = Self::find() {
            return Ok(runtime);
        }
        if library::named_by_user().is_none() {
            install::install()?;
        }
        Self::find()
    }

    /// The library that was loaded.
    pub fn library(&self) -> &Path {
        &self.loaded.library
    }

    fn load_library(library: &Path) -> Result<Self> {
        let refused = |detail: String| {
            let name = library.display().to_string();
            Error::environment(format!("the library {name:?} is not a usable ONNX Runtime"))
                .with_detail(detail)
        };
        // Never any other way in: without a library ort's first call panics.
        let builder = ort::init_from(library).map_err(|e| refused(e.to_string()))?;
        let environment = builder
            .with_name("mainstem")
            .with_telemetry(false)
            .build()
            .map_err(|e| refused(e.to_string()))?;
        // Errors come back from calls; on standard error they would be noise.
        environment.set_log_level(LogLevel::Fatal);
        let library = library.to_path_buf();
        Ok(Self {
            loaded: Arc::new(Loaded {
                library,
                environment,
            }),
        })
    }

    fn session(&self, model: &[u8]) -> std::result::Result<Session, String> {
        let text = |e: ort::Error<ort::session::builder::SessionBuilder>| e.to_string();
        Session::builder(&self.loaded.environment)
            .map_err(|e| e.to_string())?
            // One thread: models change bits with the number of threads, and the workers are the threads.
            .with_intra_threads(1)
            .map_err(text)?
            .with_inter_threads(1)
            .map_err(text)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(text)?
            .commit_from_memory(model)
            .map_err(|e| e.to_string())
    }
}

impl fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnnxRuntime")
            .field("library", &self.loaded.library)
            .finish_non_exhaustive()
    }
}

impl InferenceBackend for OnnxRuntime {
    fn name(&self) -> String {
        let version: Vec<String> = library::version_of(&self.loaded.library)
            .iter()
            .map(u32::to_string)
            .collect();
        if version.is_empty() {
            "onnxruntime".into()
        } else {
            format!("onnxruntime {}", version.join("."))
        }
    }

    fn load(&self, model: &[u8]) -> Result<Box<dyn InferenceSession>> {
        let session = self.session(model).map_err(|detail| {
            Error::data("ONNX Runtime does not accept the model").with_detail(detail)
        })?;
        Ok(Box::new(OrtSession { session }))
    }
}

struct OrtSession {
    session: Session,
}

impl InferenceSession for OrtSession {
    fn run(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<Vec<(String, TensorOut)>> {
        let failed = |e: ort::Error| {
            Error::data("ONNX Runtime could not run the model").with_detail(e.to_string())
        };
        let values = inputs
            .iter()
            .map(|(name, view)| Ok((Cow::from(*name), input(view)?)))
            .collect::<ort::Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>>>()
            .map_err(failed)?;
        let outputs = self.session.run(values).map_err(failed)?;
        outputs
            .iter()
            .map(|(name, value)| {
                let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
                let width = shape.iter().skip(1).product::<i64>();
                let out = TensorOut {
                    width: usize::try_from(width).unwrap_or(0),
                    values: values.to_vec(),
                };
                Ok((name.to_owned(), out))
            })
            .collect()
    }
}

/// The input as ONNX Runtime sees it: in place, except text, which it keeps in its own form.
fn input<'a>(view: &TensorView<'a>) -> ort::Result<SessionInputValue<'a>> {
    let shape = [view.n_rows, view.width];
    Ok(match view.values {
        TensorValuesRef::Float(v) => TensorRef::from_array_view((shape, v))?.into(),
        TensorValuesRef::Double(v) => TensorRef::from_array_view((shape, v))?.into(),
        TensorValuesRef::Int64(v) => TensorRef::from_array_view((shape, v))?.into(),
        TensorValuesRef::Bool(v) => TensorRef::from_array_view((shape, v))?.into(),
        TensorValuesRef::String(v) => {
            // ort takes borrowed text only if it lives for ever.
            let owned: Vec<String> = v.iter().map(|&s| s.to_owned()).collect();
            Tensor::from_string_array((shape, &owned[..]))?.into()
        }
    })
}
