#include "base/base.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace ndarena::base {
namespace {

constexpr std::uint32_t reflected_polynomial = 0x82F63B78U;

constexpr std::uint32_t times_x(std::uint32_t crc) noexcept {
    return (crc >> 1) ^ ((crc & 1U) != 0 ? reflected_polynomial : 0U);
}

template <class T>
T load(const unsigned char* p) noexcept {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Table n: what a byte contributes that has n bytes behind it.
using byte_tables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr byte_tables make_tables() {
    byte_tables tables{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) {
            crc = times_x(crc);
        }
        tables[0][i] = crc;
    }
    for (std::size_t n = 1; n < tables.size(); ++n) {
        for (std::uint32_t i = 0; i < 256; ++i) {
            const std::uint32_t before = tables[n - 1][i];
            tables[n][i] = (before >> 8) ^ tables[0][before & 0xFFU];
        }
    }
    return tables;
}

constexpr byte_tables tables = make_tables();

std::uint32_t by_tables(const unsigned char* p, std::size_t size, std::uint32_t crc) noexcept {
    for (; size >= 8; p += 8, size -= 8) {
        const std::uint64_t word = load<std::uint64_t>(p) ^ crc;
        const auto byte = [word](unsigned i) { return tables[7 - i][word >> (8 * i) & 0xFFU]; };
        crc = byte(0) ^ byte(1) ^ byte(2) ^ byte(3) ^ byte(4) ^ byte(5) ^ byte(6) ^ byte(7);
    }
    for (; size > 0; ++p, --size) {
        crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xFFU];
    }
    return crc;
}

#if defined(__x86_64__)

// The instruction takes three cycles but starts every cycle, so three streams
// go on side by side: the first, second and third part of the data. 170 words
// each are all of a page but the last 16 bytes.
constexpr std::size_t most_words = 170;
constexpr std::size_t least_words = 8;

// Entry n is x^(64 n - 33): the carry-less product with it, reduced, is the
// checksum after n more words of zeros. The 33 are 32 that the reduction brings
// and one for the place of the product in its word.
constexpr std::array<std::uint32_t, 2 * most_words + 1> make_shifts() {
    std::array<std::uint32_t, 2 * most_words + 1> shifts{};
    std::uint32_t power = 1;  // x^31
    for (std::size_t n = 1; n < shifts.size(); ++n) {
        shifts[n] = power;
        for (int bit = 0; bit < 64; ++bit) {
            power = times_x(power);
        }
    }
    return shifts;
}

constexpr auto shifts = make_shifts();

__attribute__((target("sse4.2,pclmul"))) std::uint64_t product(std::uint64_t a,
                                                               std::uint64_t b) noexcept {
    const __m128i c = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(a)),
                                           _mm_cvtsi64_si128(static_cast<long long>(b)), 0);
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(c));
}

__attribute__((target("sse4.2,pclmul"))) std::uint32_t by_instructions(
    const unsigned char* p, std::size_t size, std::uint32_t seed) noexcept {
    std::uint64_t crc = seed;
    for (std::size_t words = size / 24; words >= least_words; words = size / 24) {
        words = words < most_words ? words : most_words;
        const std::size_t part = 8 * words;
        std::uint64_t second = 0;
        std::uint64_t third = 0;
        for (const unsigned char* end = p + part; p != end; p += 8) {
            crc = _mm_crc32_u64(crc, load<std::uint64_t>(p));
            second = _mm_crc32_u64(second, load<std::uint64_t>(p + part));
            third = _mm_crc32_u64(third, load<std::uint64_t>(p + 2 * part));
        }
        crc = third ^
              _mm_crc32_u64(0, product(crc, shifts[2 * words]) ^ product(second, shifts[words]));
        p += 2 * part;
        size -= 3 * part;
    }
    for (; size >= 8; p += 8, size -= 8) {
        crc = _mm_crc32_u64(crc, load<std::uint64_t>(p));
    }
    auto rest = static_cast<std::uint32_t>(crc);
    for (; size > 0; ++p, --size) {
        rest = _mm_crc32_u8(rest, *p);
    }
    return rest;
}

bool detect() noexcept {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("pclmul") != 0;
}

// False before it is initialised, which is as right and only slower.
const bool has_instructions = detect();

#elif defined(__ARM_FEATURE_CRC32)

std::uint32_t by_instructions(const unsigned char* p, std::size_t size,
                              std::uint32_t crc) noexcept {
    for (; size >= 8; p += 8, size -= 8) {
        crc = __crc32cd(crc, load<std::uint64_t>(p));
    }
    for (; size > 0; ++p, --size) {
        crc = __crc32cb(crc, *p);
    }
    return crc;
}

constexpr bool has_instructions = true;

#else

constexpr auto by_instructions = by_tables;
constexpr bool has_instructions = false;

#endif

}  // namespace

std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t seed) noexcept {
    const auto* p = static_cast<const unsigned char*>(data);
    return ~(has_instructions ? by_instructions(p, size, ~seed) : by_tables(p, size, ~seed));
}

std::uint32_t crc32c_portable(const void* data, std::size_t size, std::uint32_t seed) noexcept {
    return ~by_tables(static_cast<const unsigned char*>(data), size, ~seed);
}

}  // namespace ndarena::base
