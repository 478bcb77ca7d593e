//! What an Arrow IPC sink writes is read again as it was.

use arrow::datatypes::DataType;
use expect_test::expect;

use super::*;
use crate::connectors::every_type::every_type;
use crate::connectors::ipc;
use crate::connectors::test_folder::TestFolder;
use crate::output::OnBadRow;
use crate::testing::{check_sink, read_source, table, write_sink};

fn read_back(place: &Path) -> Result<Vec<RecordBatch>> {
    if !place.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![read_source(&ipc(place), OnBadRow::Fail)?.0])
}

#[test]
fn the_laws_of_sinks_hold_for_rows_of_every_type() {
    let rows = every_type(&[]);
    for n_rows in [1, 4, 100] {
        let folder =
            |place: &Path| -> Box<dyn Sink> { Box::new(ipc_sink(place).rows_per_file(n_rows)) };
        check_sink(&rows, folder, read_back).unwrap();
    }
}

#[test]
fn compressed_buffers_keep_the_laws_and_take_less() {
    let rows = every_type(&[]);
    for compression in [IpcCompression::Lz4, IpcCompression::Zstd] {
        let folder =
            |place: &Path| -> Box<dyn Sink> { Box::new(ipc_sink(place).compression(compression)) };
        check_sink(&rows, folder, read_back).unwrap();
    }
    let folder = TestFolder::new();
    let alike = table(&format!("x: {}", ["7"; 10_000].join(", ")));
    let size = |name: &str, compression| {
        let sink = ipc_sink(folder.path(name)).compression(compression);
        write_sink(&sink, &[vec![alike.clone()]]).unwrap().n_bytes
    };
    let plain = size("plain", IpcCompression::None);
    assert!(size("lz4", IpcCompression::Lz4) * 10 < plain);
    assert!(size("zstd", IpcCompression::Zstd) * 10 < plain);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let refused = |schema: SchemaRef| ipc_sink("out").accepts(&schema).unwrap_err().to_string();
    expect!["rows without columns cannot be written to Arrow IPC"]
        .assert_eq(&refused(Arc::new(Schema::empty())));
    expect![[r#"
        two columns are called "x"
          Hint: Rename one of them with `select`."#]]
    .assert_eq(&refused(table("x: 1; x: 2").schema()));
    let unions = DataType::Union(
        [(0_i8, Arc::new(Field::new("a", DataType::Utf8, true)))]
            .into_iter()
            .collect(),
        arrow::datatypes::UnionMode::Dense,
    );
    let accepted = Schema::new(vec![Field::new("x", unions, true)]);
    ipc_sink("out").accepts(&Arc::new(accepted)).unwrap();
}
