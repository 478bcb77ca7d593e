//! Where ONNX Runtime's library may lie on this machine.
//!
//! ```text
//! ORT_DYLIB_PATH ─▶ our cache folder ─▶ Python's onnxruntime package ─▶ the system's library folders
//! ```

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release of ONNX Runtime that is installed where none is there.
pub(crate) const PINNED_VERSION: &str = "1.23.2";

/// The library of the pinned release in our cache folder; `None` without a home folder.
pub(crate) fn cached_library() -> Option<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    let folder = cache
        .join("mainstem")
        .join(format!("onnxruntime-{PINNED_VERSION}"));
    Some(folder.join(pinned_file_name()))
}

/// The name of the library in the pinned release.
pub(crate) fn pinned_file_name() -> String {
    if cfg!(target_os = "macos") {
        format!("libonnxruntime.{PINNED_VERSION}.dylib")
    } else {
        format!("libonnxruntime.so.{PINNED_VERSION}")
    }
}

/// The library that the user names by `ORT_DYLIB_PATH`.
pub(crate) fn named_by_user() -> Option<PathBuf> {
    env::var_os("ORT_DYLIB_PATH")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

/// The libraries that are there, best first. Python is started only if no other place has one.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = cached_library()
        .into_iter()
        .filter(|p| p.is_file())
        .collect();
    for packages in site_packages() {
        found.extend(libraries_in(&packages.join("onnxruntime").join("capi")));
    }
    for folder in system_folders() {
        found.extend(libraries_in(&folder));
    }
    if found.is_empty() {
        found.extend(ask_python().iter().flat_map(|p| libraries_in(p)));
    }
    found
}

/// The Python interpreters on `PATH`.
pub(crate) fn interpreters() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    ["python3", "python"]
        .iter()
        .flat_map(|name| {
            let folders: Vec<PathBuf> = env::split_paths(&path).collect();
            folders.into_iter().map(move |folder| folder.join(name))
        })
        .filter(|p| p.is_file())
        .collect()
}

/// The usual package folders of the Python interpreters on `PATH`, without starting one.
fn site_packages() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = env::var_os("VIRTUAL_ENV")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    for interpreter in interpreters() {
        // As named first: in a virtual environment the interpreter is a link to one elsewhere.
        let resolved = interpreter.canonicalize().ok();
        for path in std::iter::once(interpreter).chain(resolved) {
            roots.extend(path.parent().and_then(Path::parent).map(Path::to_path_buf));
        }
    }
    roots.extend(env::var_os("HOME").map(|home| PathBuf::from(home).join(".local")));
    roots.extend(["/usr/local", "/usr"].map(PathBuf::from));
    let mut folders = Vec::new();
    for root in roots {
        let versions = sorted_entries(&root.join("lib"));
        for version in versions
            .into_iter()
            .filter(|p| file_name(p).starts_with("python3"))
        {
            for packages in ["site-packages", "dist-packages"] {
                let folder = version.join(packages);
                if folder.is_dir() && !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
    }
    folders
}

fn system_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"]
        .iter()
        .filter_map(env::var_os)
        .flat_map(|paths| env::split_paths(&paths).collect::<Vec<_>>())
        .filter(|p| p.is_absolute())
        .collect();
    let arch = env::consts::ARCH;
    folders.extend(
        [
            "/usr/local/lib".into(),
            "/usr/local/lib64".into(),
            format!("/usr/lib/{arch}-linux-gnu"),
            "/usr/lib64".into(),
            "/usr/lib".into(),
            "/opt/homebrew/lib".into(),
        ]
        .map(|p: String| PathBuf::from(p)),
    );
    folders
}

/// The folder of the library in the package that the first interpreter finds, asked without importing it.
fn ask_python() -> Option<PathBuf> {
    let program =
        "import importlib.util as u; s = u.find_spec('onnxruntime'); print(s.origin if s else '')";
    let answer = Command::new(interpreters().first()?)
        .args(["-c", program])
        .output()
        .ok()?;
    let origin = String::from_utf8(answer.stdout).ok()?;
    let package = Path::new(origin.trim()).parent()?.to_path_buf();
    Some(package.join("capi"))
}

/// ONNX Runtime's libraries in a folder, the newest first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let is_library = |name: &str| {
        name == "libonnxruntime.so"
            || name.starts_with("libonnxruntime.so.1")
            || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
    };
    let mut found: Vec<PathBuf> = sorted_entries(folder)
        .into_iter()
        .filter(|p| is_library(&file_name(p)) && p.is_file())
        .collect();
    found.sort_by_key(|p| std::cmp::Reverse(version_of(p)));
    found
}

/// The version in the name of a library file, by its numbers; empty if it has none.
pub(crate) fn version_of(library: &Path) -> Vec<u32> {
    file_name(library)
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn sorted_entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_folder_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.23.2",
            "libonnxruntime_providers_shared.so",
            "libother.so",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<String> = libraries_in(folder.path())
            .iter()
            .map(|p| file_name(p))
            .collect();
        assert_eq!(
            names,
            ["libonnxruntime.so.1.23.2", "libonnxruntime.so.1.9.0"]
        );
        assert_eq!(
            version_of(Path::new("/x.1/libonnxruntime.so.1.23.2")),
            [1, 23, 2]
        );
    }

    #[test]
    fn a_folder_that_is_not_there_holds_no_library() {
        assert!(libraries_in(Path::new("/no/such/folder")).is_empty());
    }
}
