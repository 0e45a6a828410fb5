//! Random numbers that are the same on every run.

/// SplitMix64: 64 bits of state, every seed as good as any other.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The stream that `seed` decides.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, all about equally likely; 0 when `bound` is.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The product's upper half is below `bound` and as even as 64 random bits make it.
        ((self.draw() as u128 * bound as u128) >> 64) as u64
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.draw().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_the_published_one() {
        // The first numbers of seed 1234567, from the reference implementation's page.
        let mut rng = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| rng.draw()), expected);
    }

    #[test]
    fn bounded_numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut rng = SplitMix64::new(1);
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[rng.below(7) as usize] = true);
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn filling_takes_any_length() {
        let mut bytes = [0; 21];
        SplitMix64::new(3).fill(&mut bytes);
        let mut rng = SplitMix64::new(3);
        let stream: [[u8; 8]; 3] = [(); 3].map(|()| rng.draw().to_le_bytes());
        assert_eq!(bytes, stream.as_flattened()[..21]);
    }
}
