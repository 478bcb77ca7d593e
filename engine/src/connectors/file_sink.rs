//! The options that all sinks of files have.

/// Gives a sink with a field `options: ShardOptions` the options of all sinks of files.
macro_rules! file_sink_options {
    ($sink:ty) => {
        impl $sink {
            /// Starts a new file after so many rows, at least one; where all is put into one file, it stays one.
            #[must_use]
            pub fn rows_per_file(mut self, n_rows: u64) -> Self {
                self.options.rows_per_file = Some(n_rows.max(1));
                self
            }

            /// Starts a new file once one has about so many bytes.
            ///
            /// A file is a little larger than this: what was written last is not cut in two. Each worker
            /// writes files of its own, and its last may be small.
            #[must_use]
            pub fn max_bytes_per_file(mut self, max_bytes: u64) -> Self {
                self.options.max_bytes_per_file = Some(max_bytes.max(1));
                self
            }

            /// Puts rows into folders by the values of these columns, as Hive does:
            /// `year=2020/month=5/part-00000-of-00001.…`.
            ///
            /// The columns stand in the names of the folders, not in the files. They hold whole numbers, text,
            /// booleans, dates or times. Null and empty text become `__HIVE_DEFAULT_PARTITION__`; what a name
            /// of a folder may not hold, such as `/`, `:` or `%`, is written as `%` and two hexadecimal digits.
            /// On disk, a row whose folder would need a name of more than 255 bytes ends the run.
            /// The rows of a worker that go to one folder keep their order.
            #[must_use]
            pub fn partition_by(
                mut self,
                columns: impl IntoIterator<Item = impl Into<String>>,
            ) -> Self {
                self.options.partition_by = columns.into_iter().map(Into::into).collect();
                self
            }

            /// How many files each worker keeps open where rows go to several folders: by default 64.
            ///
            /// When there are more folders, the file that has not been written to for longest is closed. Each
            /// open file holds what its format does not write yet, for Parquet a row group: fewer open files
            /// take less memory, and make more and smaller files unless rows come sorted by folder.
            #[must_use]
            pub fn max_open_files(mut self, n_files: usize) -> Self {
                self.options.max_open_files = n_files.max(1);
                self
            }

            /// Replaces what is there, once the new rows are whole.
            ///
            /// An old folder is moved aside, the new one takes its name, and the old one is removed: two
            /// renames, between which a reader finds nothing. In an object store the new files appear beside
            /// the old, which are then removed; meanwhile the folder is marked. A folder that holds anything
            /// but files of this format is refused.
            #[must_use]
            pub fn overwrite(mut self, overwrite: bool) -> Self {
                self.options.existing = $crate::connectors::staging::Existing::when(overwrite);
                self
            }

            /// How an object store is reached, where the place is a URL: by default as the environment says.
            #[must_use]
            pub fn storage(mut self, storage: $crate::connectors::Storage) -> Self {
                self.options.storage = storage;
                self
            }
        }
    };
}

pub(crate) use file_sink_options;
