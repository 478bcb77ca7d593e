//! Which column of a join comes from which side, and what each side must bring.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::Expr;

use super::keys::{Keys, can_hash, common_type};
use super::{Join, JoinKind, Side};
use crate::error::{Error, Result};
use crate::expression::{Expression, check_columns};
use crate::ops::key_columns::{is_made, key_text};

/// A join that fits its inputs.
#[derive(Debug)]
pub(in crate::ops) struct Layout {
    pub(in crate::ops) kind: JoinKind,
    /// The keys with the type in which they are compared.
    pub(in crate::ops) keys: Vec<Key>,
    /// The columns of the result, in order.
    pub(in crate::ops) columns: Vec<Column>,
    /// The filter, with the columns it reads.
    pub(in crate::ops) filter: Option<(Expr, Vec<Column>)>,
}

#[derive(Clone, Debug)]
pub(in crate::ops) struct Key {
    pub(in crate::ops) left: Expr,
    pub(in crate::ops) right: Expr,
    pub(in crate::ops) data_type: DataType,
}

impl Key {
    pub(in crate::ops) fn of(&self, side: Side) -> &Expr {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// The name, where the keys are columns of one name.
    fn shared_name(&self) -> Option<&str> {
        match (&self.left, &self.right) {
            (Expr::Column(l), Expr::Column(r)) if l.name == r.name => Some(&l.name),
            _ => None,
        }
    }
}

/// A column of the result.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Column {
    pub(in crate::ops) field: Arc<Field>,
    pub(in crate::ops) from: Origin,
}

/// The columns a value is taken from, by name.
#[derive(Clone, Debug)]
pub(in crate::ops) enum Origin {
    One(Side, String),
    /// A key of that name on both sides: from whichever has a row.
    Either(String),
}

impl Origin {
    pub(in crate::ops) fn name_on(&self, side: Side) -> Option<&str> {
        match self {
            Self::One(of, name) if *of == side => Some(name),
            Self::One(..) => None,
            Self::Either(name) => Some(name),
        }
    }
}

impl Layout {
    /// Checks a join against the columns of both sides; of the result, only columns of `wanted` are made.
    pub(in crate::ops) fn new(
        join: &Join,
        left: &SchemaRef,
        right: &SchemaRef,
        wanted: Option<&[String]>,
    ) -> Result<Self> {
        let keys = keys(join, left, right)?;
        let both = match (join.kind.only(), &join.filter) {
            (Some(_), None) => Vec::new(),
            _ => both_sides(join, &keys, left, right)?,
        };
        let filter = match &join.filter {
            Some(filter) => Some(filter_columns(filter, &both)?),
            None => None,
        };
        let mut columns = match join.kind.only() {
            Some(side) => {
                let schema = match side {
                    Side::Left => left,
                    Side::Right => right,
                };
                let column = |field: &Arc<Field>| Column {
                    field: Arc::clone(field),
                    from: Origin::One(side, field.name().clone()),
                };
                own_fields(schema).map(column).collect()
            }
            None => both,
        };
        if let Some(wanted) = wanted {
            let first = columns.first().cloned();
            columns.retain(|c| wanted.contains(c.field.name()));
            if columns.is_empty() {
                // To count rows by.
                columns.extend(first);
            }
        }
        Ok(Self {
            kind: join.kind,
            keys,
            columns,
            filter,
        })
    }

    pub(in crate::ops) fn schema(&self) -> SchemaRef {
        schema_of(&self.columns)
    }

    /// The columns that the result and the filter take from `side`, each once.
    pub(in crate::ops) fn taken(&self, side: Side) -> Vec<String> {
        let of_filter = self.filter.iter().flat_map(|(_, columns)| columns);
        let all = self.columns.iter().chain(of_filter);
        let names: BTreeSet<&str> = all.filter_map(|c| c.from.name_on(side)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The keys of some rows of a side.
    ///
    /// # Errors
    /// If one is beyond the type of the column that the result has for it and the key of the other side.
    pub(super) fn encode(&self, keys: &[ArrayRef], types: &[DataType]) -> Result<Keys> {
        let is_shared = |column: &Column| matches!(column.from, Origin::Either(_));
        match self.columns.iter().any(is_shared) {
            true => Keys::encode_all(keys, types),
            false => Keys::encode(keys, types),
        }
    }

    /// The columns that `side` must bring: those taken, and those its keys read.
    pub(in crate::ops) fn reads(&self, side: Side) -> Vec<String> {
        let mut names: BTreeSet<String> = self.taken(side).into_iter().collect();
        for key in &self.keys {
            let columns = key.of(side).column_refs();
            names.extend(columns.into_iter().map(|c| c.name.clone()));
        }
        names.into_iter().collect()
    }
}

pub(in crate::ops) fn schema_of(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Arc<Field>> = columns.iter().map(|c| Arc::clone(&c.field)).collect();
    Arc::new(Schema::new(fields))
}

fn keys(join: &Join, left: &SchemaRef, right: &SchemaRef) -> Result<Vec<Key>> {
    if join.on.is_empty() {
        return Err(Error::pipeline("a join needs at least one pair of keys")
            .with_hint("For all pairs of rows, join on `lit(1)` of both sides."));
    }
    let mut keys = Vec::new();
    let mut errors: Vec<Error> = Vec::new();
    for (of_left, of_right) in &join.on {
        let on = |side: Side, expr: &Expr, schema: &SchemaRef| {
            Expression::compile(expr, schema).map_err(|e| {
                let (key, side) = (key_text(expr), side.name());
                e.with_detail(format!("Key `{key}` is of the {side} side."))
            })
        };
        let compiled = (
            on(Side::Left, of_left, left),
            on(Side::Right, of_right, right),
        );
        let (l, r) = match compiled {
            (Ok(l), Ok(r)) => (l, r),
            (l, r) => {
                errors.extend(l.err().into_iter().chain(r.err()));
                continue;
            }
        };
        let unfit = [(of_left, &l), (of_right, &r)]
            .into_iter()
            .find(|(_, key)| !can_hash(key.data_type()));
        if let Some((expr, key)) = unfit {
            let (expr, found) = (key_text(expr), key.data_type());
            errors.push(
                Error::pipeline(format!("key `{expr}` cannot be hashed: {found}"))
                    .with_hint("Join on a field of it, or on a text form of it."),
            );
            continue;
        }
        match common_type(l.data_type(), r.data_type()) {
            Some(data_type) => keys.push(Key {
                left: of_left.clone(),
                right: of_right.clone(),
                data_type,
            }),
            None => errors.push(
                Error::pipeline(format!(
                    "key `{}` is {}, key `{}` is {}",
                    key_text(of_left),
                    l.data_type(),
                    key_text(of_right),
                    r.data_type()
                ))
                .with_hint("Bring both to one type with `cast`."),
            ),
        }
    }
    if errors.is_empty() {
        Ok(keys)
    } else {
        Err(Error::all(errors))
    }
}

/// The columns but those that were made for keys.
fn own_fields(schema: &SchemaRef) -> impl Iterator<Item = &Arc<Field>> {
    schema.fields().iter().filter(|f| !is_made(f.name()))
}

/// The left columns, then the right ones; keys of one name once.
fn both_sides(
    join: &Join,
    keys: &[Key],
    left: &SchemaRef,
    right: &SchemaRef,
) -> Result<Vec<Column>> {
    let shared = |name: &str| keys.iter().find(|k| k.shared_name() == Some(name));
    let (left_misses, right_misses) = (
        join.kind.keeps_unmatched(Side::Right),
        join.kind.keeps_unmatched(Side::Left),
    );
    let mut columns = Vec::with_capacity(left.fields().len() + right.fields().len());
    for field in own_fields(left) {
        let name = field.name();
        let right_field = shared(name).and_then(|_| right.field_with_name(name).ok());
        columns.push(match (right_field, shared(name), join.kind) {
            (Some(right), Some(_), JoinKind::Right | JoinKind::RightSemi | JoinKind::RightAnti) => {
                Column {
                    field: Arc::new(right.clone()),
                    from: Origin::One(Side::Right, name.clone()),
                }
            }
            (Some(right), Some(key), JoinKind::Full) => Column {
                field: Arc::new(Field::new(
                    name,
                    key.data_type.clone(),
                    field.is_nullable() || right.is_nullable(),
                )),
                from: Origin::Either(name.clone()),
            },
            (shared, ..) => {
                let nullable = field.is_nullable() || (left_misses && shared.is_none());
                Column {
                    field: Arc::new(field.as_ref().clone().with_nullable(nullable)),
                    from: Origin::One(Side::Left, name.clone()),
                }
            }
        });
    }
    let mut taken: BTreeSet<String> = left.fields().iter().map(|f| f.name().clone()).collect();
    let mut twice: Vec<String> = Vec::new();
    for field in own_fields(right).filter(|f| shared(f.name()).is_none()) {
        let mut name = field.name().clone();
        if let Some(suffix) = &join.suffix
            && left.index_of(&name).is_ok()
        {
            name.push_str(suffix);
        }
        if !taken.insert(name.clone()) {
            twice.push(format!("{name:?}"));
            continue;
        }
        let nullable = field.is_nullable() || right_misses;
        columns.push(Column {
            field: Arc::new(
                field
                    .as_ref()
                    .clone()
                    .with_name(name)
                    .with_nullable(nullable),
            ),
            from: Origin::One(Side::Right, field.name().clone()),
        });
    }
    if twice.is_empty() {
        return Ok(columns);
    }
    let names = twice.join(", ");
    let (noun, verb) = match twice.len() {
        1 => ("column", "is"),
        _ => ("columns", "are"),
    };
    let suffix = match join.suffix.as_deref() {
        Some("_right") => "_2",
        _ => "_right",
    };
    Err(
        Error::pipeline(format!("{noun} {names} {verb} on both sides of the join")).with_hint(
            format!(
                "Rename with `select`, or tell the right one apart with `Join::suffix({suffix:?})`."
            ),
        ),
    )
}

/// The filter with its columns as they stand in a pair of rows.
pub(in crate::ops) fn filter_columns(
    filter: &Expr,
    both: &[Column],
) -> Result<(Expr, Vec<Column>)> {
    check_columns(filter, &schema_of(both))?;
    let reads = filter.column_refs();
    let columns: Vec<Column> = both
        .iter()
        .filter(|c| reads.iter().any(|r| r.name == *c.field.name()))
        .cloned()
        .collect();
    Expression::compile_predicate(filter, &schema_of(&columns))?;
    Ok((filter.clone(), columns))
}
