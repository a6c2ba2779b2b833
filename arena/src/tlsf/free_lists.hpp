// The segregated free lists with their bitmaps, and the queue of freed blocks
// that wait for purging. Lists are last-in first-out; the queue is in order of
// freeing.
#pragma once

#include "tlsf/block_table.hpp"

#include <array>

namespace ndarena::tlsf {

class free_lists {
public:
    explicit free_lists(block_table& table) noexcept
        : table_(table),
          heads_(reinterpret_cast<std::uint32_t*>(table.base() + table.geo().heads_offset())) {}

    void reset() noexcept;  // all empty; not journaled (formatting)

    void insert(std::uint32_t index, block_record& r) noexcept;
    void remove(std::uint32_t index, block_record& r) noexcept;
    std::uint32_t head(size_class c) const noexcept {
        return heads_[c.first * segment::second_level_count + c.second];
    }
    // The first non-empty class at or above `c`; false if there is none.
    bool find_from(size_class& c) const noexcept;

    // Purge queue. Invariant: a free block is queued if and only if its dirty
    // prefix is at least `purge_unit`; `purge_bytes` is the sum of the queued
    // dirty prefixes.
    static constexpr std::uint64_t purge_unit = std::uint64_t{64} << 10;
    void enqueue(std::uint32_t index, block_record& r, std::uint64_t now) noexcept;
    void dequeue(block_record& r) noexcept;
    // A queued block starts to wait anew: behind all others.
    void requeue(std::uint32_t index, block_record& r, std::uint64_t now) noexcept;
    // The dirty prefix of a queued or unqueued free block changes.
    void set_dirty(std::uint32_t index, block_record& r, std::uint64_t dirty,
                   std::uint64_t now) noexcept;

private:
    static unsigned slot_of(size_class c) noexcept {
        return c.first * segment::second_level_count + c.second;
    }
    block_table& table_;
    std::uint32_t* heads_;
};

}  // namespace ndarena::tlsf
