//! Which columns a side input adds, what is compared with what, and what is refused.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion_expr::Expr;

use super::reach::Reach;
use super::{Missing, Shape, SideInput};
use crate::error::{Error, Result};
use crate::event_time::{DIFF, EVENT_TIME, PANE, WINDOW_END, WINDOW_START, check_event_time};
use crate::expression::{Expression, check_column, with_columns_of};
use crate::keys::plain_type;
use crate::ops::join::{can_hash, common_type};
use crate::windowing::{Accumulation, Trigger, Windowing};

/// A side input that fits its inputs.
#[derive(Debug)]
pub(super) struct Layout {
    /// What messages call the side.
    pub(super) side: Arc<str>,
    pub(super) missing: Missing,
    pub(super) reach: Reach,
    pub(super) keys: Vec<Key>,
    pub(super) values: Values,
    /// The columns of the side as it comes.
    pub(super) given_side: SchemaRef,
    /// The columns that are kept of the side: keys, then values.
    pub(super) stored: SchemaRef,
    /// The columns that are added, in order.
    pub(super) added: Vec<Arc<Field>>,
}

/// The key of main rows, that of side rows, and the type in which both are compared.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) main: Expr,
    pub(super) side: Expr,
    pub(super) data_type: DataType,
}

/// What is kept of a side row besides its key.
#[derive(Debug)]
pub(super) enum Values {
    /// These columns: of the one row that is seen.
    Columns(Vec<String>),
    /// The value of a list.
    List(Expr),
}

impl Layout {
    pub(super) fn new(
        input: &SideInput,
        name: &Arc<str>,
        windowings: &[Windowing; 2],
        main: &SchemaRef,
        side: &SchemaRef,
    ) -> Result<Self> {
        let mut errors = Vec::new();
        let mut keep = |checked: Result<()>| errors.extend(checked.err());
        keep(check_time(input, name, windowings, main, side));
        let mut keys = Vec::new();
        if input.shape.on().is_empty()
            && matches!(input.shape, Shape::Map { .. } | Shape::Multimap { .. })
        {
            let shape = input.shape.name();
            keep(Err(Error::pipeline(format!(
                "a {shape} needs at least one pair of keys"
            ))
            .with_hint(
                "For all rows of the side, take a singleton or a list.",
            )));
        }
        for pair in input.shape.on() {
            match key(pair, name, main, side) {
                Ok(key) => keys.push(key),
                Err(error) => keep(Err(error)),
            }
        }
        let values = match Values::new(input, name, side) {
            Ok(values) => Some(values),
            Err(error) => {
                keep(Err(error));
                None
            }
        };
        let (Some((values, kept, added)), true) = (values, errors.is_empty()) else {
            return Err(Error::all(errors));
        };
        let added = renamed(input, name, main, added)?;
        let mut stored: Vec<Arc<Field>> = Vec::with_capacity(keys.len() + kept.len());
        for (n, key) in keys.iter().enumerate() {
            let field = Field::new(format!("key {n}"), key.data_type.clone(), false);
            stored.push(Arc::new(field));
        }
        stored.extend(kept);
        Ok(Self {
            side: Arc::clone(name),
            missing: input.missing(),
            reach: Reach::new(input.versions, windowings),
            keys,
            values,
            given_side: Arc::clone(side),
            stored: Arc::new(Schema::new(stored)),
            added,
        })
    }

    pub(super) fn n_keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn key_types(&self) -> Vec<DataType> {
        self.keys.iter().map(|key| key.data_type.clone()).collect()
    }

    /// The columns of the result, for those of the main rows.
    pub(super) fn output(&self, main: &Schema) -> SchemaRef {
        let fields = main.fields().iter().chain(&self.added);
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
    }

    /// The columns that are read of the side.
    pub(super) fn reads_of_side(&self) -> Vec<String> {
        let of_keys = self.keys.iter().map(|key| &key.side);
        let (columns, value) = match &self.values {
            Values::Columns(columns) => (columns.clone(), None),
            Values::List(value) => (Vec::new(), Some(value)),
        };
        let columns = [columns, of_time()].concat();
        with_columns_of(Some(&columns), of_keys.chain(value)).unwrap_or_default()
    }

    /// The columns that are read of the main rows, where of the result only those `wanted` are.
    pub(super) fn reads_of_main(&self, wanted: &[String]) -> Vec<String> {
        let is_added = |name: &String| self.added.iter().any(|f| f.name() == name);
        let wanted = wanted.iter().filter(|name| !is_added(name)).cloned();
        let columns: Vec<String> = wanted.chain(of_time()).collect();
        with_columns_of(Some(&columns), self.keys.iter().map(|key| &key.main)).unwrap_or_default()
    }

    /// What is wrong with a side for whose watermark rows wait.
    pub(super) fn check_in_step(&self, is_bounded: bool) -> Result<()> {
        if !self.reach.is_whole() {
            return Ok(());
        }
        let side = &*self.side;
        let wrong = match is_bounded {
            true => format!(
                "side input {side:?} is in step and has no windows: all rows would wait for its end"
            ),
            false => format!("rows wait for the end of side input {side:?}, which never ends"),
        };
        Err(Error::pipeline(wrong).with_hint("Divide the side by `window`, or see the version valid at the time of a row with `SideInput::as_of_event_time`."))
    }
}

/// What is read of event time, where it is there.
fn of_time() -> Vec<String> {
    [EVENT_TIME, WINDOW_START, WINDOW_END]
        .map(str::to_owned)
        .to_vec()
}

type Fields = Vec<Arc<Field>>;

impl Values {
    /// The values, the columns in which they are kept, and those that they become.
    fn new(input: &SideInput, name: &str, side: &SchemaRef) -> Result<(Self, Fields, Fields)> {
        if let Shape::List { name: list, value }
        | Shape::Multimap {
            name: list, value, ..
        } = &input.shape
        {
            if input.columns.is_some() {
                return Err(Error::pipeline(format!(
                    "a {} adds one column, {list:?}",
                    input.shape.name()
                ))
                .with_hint("Say what its values are by its expression, and leave `columns` out."));
            }
            let compiled = Expression::compile(value, side).map_err(|e| of_side(e, name))?;
            let (data_type, nullable) = (compiled.data_type(), compiled.nullable());
            check_order(&format!("`{value}`"), data_type, name)?;
            let item = Field::new_list_field(data_type.clone(), nullable);
            let kept = Field::new("value", data_type.clone(), nullable);
            let added = Field::new(list, DataType::List(Arc::new(item)), true);
            let values = Self::List(value.clone());
            return Ok((values, vec![Arc::new(kept)], vec![Arc::new(added)]));
        }
        let columns: Vec<String> = match &input.columns {
            Some(columns) => columns.clone(),
            None => {
                let is_key = |name: &str| {
                    let mut keys = input.shape.on().iter();
                    keys.any(|(_, key)| matches!(key, Expr::Column(c) if c.name == name))
                };
                let of_time = [EVENT_TIME, WINDOW_START, WINDOW_END, PANE];
                let names = side.fields().iter().map(|f| f.name());
                names
                    .filter(|name| !is_key(name) && !of_time.contains(&name.as_str()))
                    .cloned()
                    .collect()
            }
        };
        if columns.is_empty() {
            return Err(
                Error::pipeline(format!("side input {name:?} adds no columns"))
                    .with_hint("Name some with `columns`, or keep rows by a semi join instead."),
            );
        }
        let (mut kept, mut added) = (Fields::new(), Fields::new());
        for (n, column) in columns.iter().enumerate() {
            let place = check_column(column, side).map_err(|e| of_side(e, name))?;
            let field = side.field(place);
            check_order(&format!("column {column:?}"), field.data_type(), name)?;
            kept.push(Arc::new(field.clone().with_name(format!("value {n}"))));
            added.push(Arc::new(field.clone().with_nullable(true)));
        }
        Ok((Self::Columns(columns), kept, added))
    }
}

fn of_side(error: Error, name: &str) -> Error {
    error.with_detail(format!("It is read of side input {name:?}."))
}

fn key(
    (of_main, of_side_row): &(Expr, Expr),
    name: &str,
    main: &SchemaRef,
    side: &SchemaRef,
) -> Result<Key> {
    let left = Expression::compile(of_main, main)
        .map_err(|e| e.with_detail(format!("Key `{of_main}` is of the main rows.")));
    let right = Expression::compile(of_side_row, side)
        .map_err(|e| e.with_detail(format!("Key `{of_side_row}` is of side input {name:?}.")));
    let (left, right) = match (left, right) {
        (Ok(left), Ok(right)) => (left, right),
        (left, right) => {
            return Err(Error::all(
                left.err()
                    .into_iter()
                    .chain(right.err())
                    .collect::<Vec<_>>(),
            ));
        }
    };
    for (expr, key) in [(of_main, &left), (of_side_row, &right)] {
        if !can_hash(key.data_type()) {
            let found = key.data_type();
            return Err(
                Error::pipeline(format!("key `{expr}` cannot be hashed: {found}"))
                    .with_hint("Take a field of it, or a text form of it."),
            );
        }
    }
    match common_type(left.data_type(), right.data_type()) {
        Some(data_type) => Ok(Key {
            main: of_main.clone(),
            side: of_side_row.clone(),
            data_type: plain_type(&data_type),
        }),
        None => Err(Error::pipeline(format!(
            "key `{of_main}` is {}, key `{of_side_row}` is {}",
            left.data_type(),
            right.data_type()
        ))
        .with_hint("Bring both to one type with `cast`.")),
    }
}

/// Values are put in order, so that no result depends on the order in which rows arrive.
fn check_order(what: &str, data_type: &DataType, name: &str) -> Result<()> {
    if RowConverter::supports_fields(&[SortField::new(data_type.clone())]) {
        return Ok(());
    }
    Err(Error::pipeline(format!(
        "{what} of side input {name:?} has no order: {data_type}"
    ))
    .with_hint("Leave it out with `columns`, or take a part of it that has one."))
}

/// The columns under the names that they have in the result.
fn renamed(
    input: &SideInput,
    name: &str,
    main: &SchemaRef,
    added: Vec<Arc<Field>>,
) -> Result<Vec<Arc<Field>>> {
    let mut fields: Vec<Arc<Field>> = Vec::with_capacity(added.len());
    let mut errors = Vec::new();
    for field in added {
        let mut field = field;
        if let Some(suffix) = &input.suffix
            && main.index_of(field.name()).is_ok()
        {
            let renamed = format!("{}{suffix}", field.name());
            field = Arc::new(field.as_ref().clone().with_name(renamed));
        }
        let is_taken =
            main.index_of(field.name()).is_ok() || fields.iter().any(|f| f.name() == field.name());
        if is_taken {
            let taken = field.name();
            errors.push(
                Error::pipeline(format!(
                    "column {taken:?} is there before side input {name:?} adds it"
                ))
                .with_hint(
                    "Tell them apart with `SideInput::suffix`, or name others with `columns`.",
                ),
            );
        }
        fields.push(field);
    }
    match errors.is_empty() {
        true => Ok(fields),
        false => Err(Error::all(errors)),
    }
}

fn check_time(
    input: &SideInput,
    name: &str,
    [main_windowing, side_windowing]: &[Windowing; 2],
    main: &Schema,
    side: &Schema,
) -> Result<()> {
    if side.index_of(DIFF).is_ok() {
        return Err(Error::pipeline(format!("side input {name:?} takes rows back"))
            .with_detail("Its column \"diff\" says which rows are added and which are taken back.")
            .with_hint("Give the versions themselves, and see the one valid at the time of a row with `SideInput::as_of_event_time`."));
    }
    let once = [Trigger::Default, Trigger::after_watermark()];
    if !once.contains(&side_windowing.trigger)
        || side_windowing.accumulation == Accumulation::AccumulatingAndRetracting
    {
        return Err(Error::pipeline(format!("side input {name:?} has a trigger of its own"))
            .with_detail("Which of its results a row saw would depend on when they arrive.")
            .with_hint("Put `window` with the default trigger behind it to see whole windows, or see the version valid at the time of a row with `SideInput::as_of_event_time`."));
    }
    let reach = Reach::new(
        input.versions,
        &[main_windowing.clone(), side_windowing.clone()],
    );
    if input.versions {
        if matches!(input.shape, Shape::List { .. } | Shape::Multimap { .. }) {
            let shape = input.shape.name();
            return Err(
                Error::pipeline(format!("a {shape} has no version valid at a time"))
                    .with_hint("Take a singleton or a map, or divide the side by `window`."),
            );
        }
        if !side_windowing.is_default() {
            return Err(Error::pipeline(format!(
                "side input {name:?} is divided into windows, and its versions are not"
            ))
            .with_hint("Leave out `window` before it, or `SideInput::as_of_event_time`."));
        }
    }
    if reach.is_whole() {
        return Ok(());
    }
    if side_windowing.of_results && side_windowing.allowed_lateness_ms > 0 {
        return Err(Error::pipeline(format!(
            "side input {name:?} may have several results of a window"
        ))
        .with_detail("Its windows allow late rows, each of which makes one more: how many there are depends on when rows arrive.")
        .with_hint("Allow no lateness where the side is aggregated; what comes later leaves there by the port \"late\"."));
    }
    reach.check(name)?;
    reach.check_main(main)?;
    let has_time =
        |schema, whose: String| check_event_time(schema).map_err(|e| e.with_detail(whose));
    has_time(main, "They are the main rows.".into())?;
    has_time(side, format!("They are those of side input {name:?}."))?;
    if main.index_of(DIFF).is_ok() {
        return Err(Error::pipeline("rows that are taken back would see another part of the side")
            .with_detail("What a row sees depends on its event time, and a row is taken back later than it is added.")
            .with_hint("Add the side input before the rows become changes."));
    }
    Ok(())
}
