//! Births of the United States: generates rows that are distributed as the real ones.

#[cfg(test)]
mod generator_tests;

mod generator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let births = generator::Births::new(1)?;
    let n_rows = 200_000;
    for block in 0..generator::Births::n_blocks(n_rows) {
        println!("{} rows", births.block(block, n_rows)?.num_rows());
    }
    Ok(())
}
