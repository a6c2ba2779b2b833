// Arithmetic on sizes and offsets that cannot overflow unnoticed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace ndarena::base {

constexpr bool is_power_of_two(std::uint64_t x) noexcept { return x != 0 && (x & (x - 1)) == 0; }

// Rounds down / up to a power of two. `align_up` wraps for values within
// `alignment` of the maximum: callers bound their sizes first (`max_size`).
constexpr std::uint64_t align_down(std::uint64_t x, std::uint64_t alignment) noexcept {
    return x & ~(alignment - 1);
}
constexpr std::uint64_t align_up(std::uint64_t x, std::uint64_t alignment) noexcept {
    return align_down(x + alignment - 1, alignment);
}

// Index of the highest / lowest set bit. Undefined for 0.
inline unsigned floor_log2(std::uint64_t x) noexcept {
    return 63U - static_cast<unsigned>(__builtin_clzll(x));
}
inline unsigned lowest_bit(std::uint64_t x) noexcept {
    return static_cast<unsigned>(__builtin_ctzll(x));
}

constexpr bool mul_overflows(std::size_t a, std::size_t b) noexcept {
    return b != 0 && a > std::numeric_limits<std::size_t>::max() / b;
}

// [offset, offset + size) lies within [lo, hi), computed without overflow.
constexpr bool range_within(std::uint64_t offset, std::uint64_t size, std::uint64_t lo,
                            std::uint64_t hi) noexcept {
    return offset >= lo && offset <= hi && size <= hi - offset;
}

// Keeps the stores before it ahead of those after it, for other processors and
// for whoever finds our memory after a SIGKILL. x86-64 never reorders stores,
// so the compiler is all that has to be held back there.
inline void order_stores() noexcept {
#if defined(__x86_64__)
    std::atomic_signal_fence(std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace ndarena::base
