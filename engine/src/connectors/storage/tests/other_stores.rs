//! The laws of sources and sinks on stores that the environment names.
//!
//! `MAINSTEM_TEST_STORES` holds URLs, parted by spaces, of places that may be written to; how they are reached, the
//! usual variables say. For Azure's emulator Azurite, with a container `container` in it:
//!
//! ```sh
//! AZURE_STORAGE_USE_EMULATOR=true MAINSTEM_TEST_STORES=az://container \
//!     cargo test -p mainstem-engine --features azure other_stores
//! ```
//!
//! For an emulator of Google's store that knows the whole XML API, or a proxy that makes one of another store:
//!
//! ```sh
//! GOOGLE_BASE_URL=http://localhost:4443 GOOGLE_SKIP_SIGNATURE=true MAINSTEM_TEST_STORES=gs://bucket \
//!     cargo test -p mainstem-engine --features gcp other_stores
//! ```

use super::publication::check_sinks;
use super::reading::check_sources;
use super::*;

#[test]
fn the_laws_of_sources_and_sinks_hold_on_the_stores_of_the_environment() {
    let Ok(roots) = std::env::var("MAINSTEM_TEST_STORES") else {
        println!("skipped: MAINSTEM_TEST_STORES names no store");
        return;
    };
    // Named as no other folder is, so that what an earlier run has left is not in the way.
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().display();
    for root in roots.split_whitespace() {
        let root = format!("{root}/mainstem{name}");
        check_sources(&format!("{root}/sources"), &Storage::new());
        check_sinks(&format!("{root}/sinks"), &Storage::new());
        println!("{root}: the laws hold");
    }
}
