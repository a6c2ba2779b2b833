// Which nodes this process has checked already.
#pragma once

#include "directory/tree.hpp"

#include <array>
#include <cstdlib>

namespace ndarena::directory {

// A lookup copies and checks a node when it meets it for the first time; from
// then on it reads it where it lies, within its bounds whatever has become of
// it. A node is known by its place and its checksum: in a block that was reused
// another node lies, with another checksum.
//
// Any number of threads may use it at once. A place remembers one node; what is
// forgotten is checked again.
//
// The first few are kept in a list, so that one look at a file costs no table.
class known_nodes {
public:
    known_nodes() noexcept = default;
    ~known_nodes() { std::free(many_); }
    known_nodes(const known_nodes&) = delete;
    known_nodes& operator=(const known_nodes&) = delete;

    bool has(node_ref where, std::uint32_t crc) const noexcept {
        const std::uint64_t word = word_of(where, crc);
        if (where.offset % node_bytes != 0) {
            return false;
        }
        if (const auto* many = __atomic_load_n(&many_, __ATOMIC_ACQUIRE)) {
            return __atomic_load_n(&many[place_of(word)], __ATOMIC_RELAXED) == word;
        }
        for (const std::uint64_t& known : few_) {
            if (__atomic_load_n(&known, __ATOMIC_RELAXED) == word) {
                return true;
            }
        }
        return false;
    }
    void add(node_ref where, std::uint32_t crc) noexcept {
        if (where.offset % node_bytes != 0) {
            return;
        }
        const std::uint64_t word = word_of(where, crc);
        auto* many = __atomic_load_n(&many_, __ATOMIC_ACQUIRE);
        if (many == nullptr) {
            const auto n = __atomic_fetch_add(&added_, 1, __ATOMIC_RELAXED);
            if (n < few_.size()) {
                __atomic_store_n(&few_[n], word, __ATOMIC_RELAXED);
                return;
            }
            many = make_table();
        }
        if (many != nullptr) {
            __atomic_store_n(&many[place_of(word)], word, __ATOMIC_RELAXED);
        }
    }

private:
    static constexpr std::size_t count = std::size_t{1} << 15;

    // Offsets have 44 bits; no node lies at 0.
    static std::uint64_t word_of(node_ref where, std::uint32_t crc) noexcept {
        return where.offset / node_bytes << 32 | crc;
    }
    static std::size_t place_of(std::uint64_t word) noexcept {
        return static_cast<std::size_t>(word >> 32) % count;
    }
    // Null without memory; the next node that is added tries again.
    std::uint64_t* make_table() noexcept {
        auto* made = static_cast<std::uint64_t*>(std::calloc(count, sizeof(std::uint64_t)));
        if (made == nullptr) {
            return nullptr;
        }
        for (const std::uint64_t& known : few_) {
            const std::uint64_t word = __atomic_load_n(&known, __ATOMIC_RELAXED);
            made[place_of(word)] = word;
        }
        std::uint64_t* first = nullptr;
        if (!__atomic_compare_exchange_n(&many_, &first, made, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE)) {
            std::free(made);
            return first;
        }
        return made;
    }

    std::array<std::uint64_t, 16> few_{};
    std::size_t added_ = 0;
    std::uint64_t* many_ = nullptr;
};

}  // namespace ndarena::directory
