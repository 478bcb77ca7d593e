//! Shards on a disk that is full, by size, and by folder.

use super::storage::LocalFile;
use super::*;
use crate::connectors::test_folder::TestFolder;
use crate::connectors::{csv_sink, parquet_sink};
use crate::testing::table;
use expect_test::expect;

/// A format whose files are all on a disk without space.
#[derive(Debug)]
struct FullDisk(Arc<dyn FileFormat>);

impl FileFormat for FullDisk {
    fn extension(&self) -> &'static str {
        self.0.extension()
    }

    fn create(
        &self,
        _: Box<dyn Writing>,
        schema: &SchemaRef,
    ) -> Result<Box<dyn Encoder>, EncodeError> {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        self.0.create(Box::new(LocalFile::new(full)), schema)
    }
}

#[test]
fn a_full_disk_is_told_as_such_and_leaves_nothing() {
    let folder = TestFolder::new();
    let rows = table("x: 1, 2; y: a, b");
    for format in [parquet_sink("").format(), csv_sink(".csv").format()] {
        let options = ShardOptions::new(folder.path("a/out"));
        let full = Arc::new(FullDisk(format));
        let shards = Shards::begin(&options, full, &rows.schema()).unwrap();
        let mut writer = shards.writer(0).unwrap();
        let written = writer.write(&rows).and_then(|()| writer.finish());
        let error = written.unwrap_err();
        shards.abort();
        assert!(error.is_environment(), "{error:?}");
        expect![[r#"
            cannot write "FOLDER/a/out": no space is left on the disk
              Hint: Free space there, or write to another disk."#]]
        .assert_eq(&folder.hide(error.to_string()));
        assert!(folder.tree().is_empty());
    }
}
