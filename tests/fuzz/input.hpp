// What every fuzz target needs: the input as a sequence of small numbers, and a
// check that ends the process in every build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

// The entry point that libFuzzer calls, and replay.cpp in ordinary builds.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ndarena::fuzz {

// A promise of the library is broken: the input that led here is a finding.
inline void require(bool kept, const char* promise, const std::string& detail = {}) {
    if (!kept) {
        std::fprintf(stderr, "broken promise: %s %s\n", promise, detail.c_str());
        std::abort();
    }
}

// Reads numbers off the front; past the end everything is zero.
class input {
public:
    input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    bool is_empty() const { return at_ >= size_; }
    std::size_t left() const { return size_ - at_; }
    const std::uint8_t* rest() const { return data_ + at_; }

    std::uint64_t number(std::size_t bytes) {
        std::uint64_t value = 0;
        const std::size_t given = bytes < left() ? bytes : left();
        std::memcpy(&value, data_ + at_, given);
        at_ += given;
        return value;
    }
    std::uint64_t byte() { return number(1); }
    std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : number(2) % limit; }

    // Powers of two and what lies between, up to 2^(exponents + 1); one in
    // sixteen is a number that nothing can hold.
    std::uint64_t size(unsigned exponents) {
        const std::uint64_t choice = byte();
        if (choice >= 240) {
            static constexpr std::uint64_t extreme[] = {
                0,          ~std::uint64_t{0},       std::uint64_t{1} << 63, std::uint64_t{1} << 44,
                0xFFFFFFFF, ~std::uint64_t{0} - 4095};
            return extreme[choice % std::size(extreme)];
        }
        const std::uint64_t power = std::uint64_t{1} << (choice % (exponents + 1));
        return power + (number(2) * 33 & (power - 1));
    }

private:
    const std::uint8_t* data_;
    std::size_t size_;
    std::size_t at_ = 0;
};

}  // namespace ndarena::fuzz
