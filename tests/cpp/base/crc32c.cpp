#include "base/base.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

namespace ndarena::base {
namespace {

// The vectors of RFC 3720, appendix B.4, and the check value of the catalogue.
TEST(Crc32c, KnownVectors) {
    EXPECT_EQ(crc32c("123456789", 9), 0xE3069283U);
    EXPECT_EQ(crc32c("", 0), 0U);
    std::vector<unsigned char> bytes(32, 0);
    EXPECT_EQ(crc32c(bytes.data(), bytes.size()), 0x8A9136AAU);
    std::fill(bytes.begin(), bytes.end(), 0xFF);
    EXPECT_EQ(crc32c(bytes.data(), bytes.size()), 0x62A8AB43U);
    std::iota(bytes.begin(), bytes.end(), 0);
    EXPECT_EQ(crc32c(bytes.data(), bytes.size()), 0x46DD794EU);
    std::iota(bytes.rbegin(), bytes.rend(), 0);
    EXPECT_EQ(crc32c(bytes.data(), bytes.size()), 0x113FDB5CU);
}

TEST(Crc32c, ContinuesFromAnEarlierResult) {
    const std::string text = "the quick brown fox jumps over the lazy dog";
    const std::uint32_t whole = crc32c(text.data(), text.size());
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        const std::uint32_t first = crc32c(text.data(), cut);
        EXPECT_EQ(crc32c(text.data() + cut, text.size() - cut, first), whole);
    }
}

TEST(Crc32c, SeesEverySingleBit) {
    std::vector<unsigned char> bytes(256, 0x5A);
    const std::uint32_t intact = crc32c(bytes.data(), bytes.size());
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        const auto mask = static_cast<unsigned char>(1U << (bit % 8));
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ mask);
        EXPECT_NE(crc32c(bytes.data(), bytes.size()), intact);
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ mask);
    }
}

// The definition: one bit after the other.
std::uint32_t bit_by_bit(std::uint32_t crc, unsigned char byte) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) {
        crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0x82F63B78U : 0U);
    }
    return crc;
}

// All lengths up to more than the longest run of three parallel streams, at
// every alignment, continued from nothing, from ones, and from anything.
TEST(Crc32c, IsTheSameByInstructionsAndByTables) {
    constexpr std::size_t longest = 5000;
    std::mt19937_64 random(1);
    std::vector<unsigned char> bytes(longest + 8);
    for (unsigned char& byte : bytes) {
        byte = static_cast<unsigned char>(random());
    }
    for (const std::uint32_t seed : {0U, 0xFFFFFFFFU, static_cast<std::uint32_t>(random())}) {
        for (std::size_t shift = 0; shift < 8; ++shift) {
            const unsigned char* p = bytes.data() + shift;
            std::uint32_t expected = ~seed;
            for (std::size_t size = 0; size <= longest; ++size) {
                ASSERT_EQ(crc32c(p, size, seed), ~expected) << size << " bytes at " << shift;
                // Every length with few words, and some with many.
                if (size < 64 || size % 67 == shift) {
                    ASSERT_EQ(crc32c_portable(p, size, seed), ~expected)
                        << size << " bytes at " << shift;
                }
                expected = bit_by_bit(expected, p[size]);
            }
        }
    }
}

// Longer than one round of the parallel streams, by many rounds.
TEST(Crc32c, IsTheSameForLongData) {
    std::mt19937_64 random(2);
    std::vector<unsigned char> bytes(1U << 20);
    for (unsigned char& byte : bytes) {
        byte = static_cast<unsigned char>(random());
    }
    for (int i = 0; i < 100; ++i) {
        const std::size_t from = random() % bytes.size();
        const std::size_t size = random() % (bytes.size() - from);
        ASSERT_EQ(crc32c(&bytes[from], size, 1), crc32c_portable(&bytes[from], size, 1))
            << size << " bytes at " << from;
    }
}

}  // namespace
}  // namespace ndarena::base
