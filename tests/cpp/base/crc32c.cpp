#include "base/base.hpp"

#include <gtest/gtest.h>

#include <numeric>
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

}  // namespace
}  // namespace ndarena::base
