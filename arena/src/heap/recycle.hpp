// The last blocks that this process has freed, put off for its next requests
// of the same size.
//
// In the segment such a block is an ordinary one, allocated and in this
// process's row: nothing is written there when it comes and goes, so neither
// the segment's lock nor the undo log is needed, and if the process dies it is
// reaped like all that it held. Only this process knows that it is free.
//
// A pure container: it decides neither what may be kept nor when something has
// to be given back. Not synchronised but for `is_empty`; the heap's mutex
// guards it. Nothing allocates.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace ndarena::heap {

class recycler {
public:
    // Two serve more than half of all operations of real programs. With more,
    // whoever has to give them back is late (docs/performance.md).
    static constexpr std::uint32_t places = 2;
    // No larger block is kept: sizes have 32 bits.
    static constexpr std::uint64_t largest = std::uint64_t{1} << 31;

    struct block {
        std::uint64_t key = 0;     // offset of the payload
        std::uint64_t serial = 0;  // identity, unchanged while it is here
        std::uint32_t record = 0;
        std::uint32_t size = 0;   // of the block
        std::uint32_t stamp = 0;  // when it came, in the caller's unit
    };

    // Most bytes to be kept; one block may be half of them. 0: nothing is
    // taken in. What is here already stays.
    void set_limit(std::uint64_t bytes) noexcept { limit_ = bytes; }
    std::uint64_t limit() const noexcept { return limit_; }
    std::uint64_t bytes() const noexcept { return bytes_; }
    std::uint32_t count() const noexcept { return count_.load(std::memory_order_relaxed); }
    // May be asked without the mutex: whether there were none a moment ago.
    bool is_empty() const noexcept { return count() == 0; }
    bool accepts(std::uint64_t size) const noexcept {
        return size - 1 < limit_ / 2 && size <= largest;  // not 0 either
    }
    bool has_room(std::uint64_t size) const noexcept {
        return count() < places && bytes_ + size <= limit_;
    }

    // REQUIRES: has_room(b.size).
    void put(const block& b) noexcept {
        blocks_[count()] = b;
        bytes_ += b.size;
        count_.store(count() + 1, std::memory_order_relaxed);
    }
    // The newest of exactly that size for which `fits(key)` holds.
    template <class Fits>
    bool take(std::uint64_t size, Fits&& fits, block& out) noexcept {
        for (std::uint32_t i = count(); i-- != 0;) {
            if (blocks_[i].size == size && fits(blocks_[i].key)) {
                remove(i, out);
                return true;
            }
        }
        return false;
    }
    // The newest of any size.
    bool take_any(block& out) noexcept {
        if (is_empty()) {
            return false;
        }
        remove(count() - 1, out);
        return true;
    }
    // When the oldest came. REQUIRES: !is_empty().
    std::uint32_t oldest_stamp() const noexcept { return blocks_[0].stamp; }
    // All are somebody else's now.
    void forget() noexcept {
        bytes_ = 0;
        count_.store(0, std::memory_order_relaxed);
    }

private:
    void remove(std::uint32_t at, block& out) noexcept {
        out = blocks_[at];
        bytes_ -= out.size;
        const std::uint32_t left = count() - 1;
        for (; at < left; ++at) {
            blocks_[at] = blocks_[at + 1];
        }
        count_.store(left, std::memory_order_relaxed);
    }

    std::uint64_t limit_ = 0;
    std::uint64_t bytes_ = 0;
    std::atomic<std::uint32_t> count_{0};
    std::array<block, places> blocks_{};  // the oldest first
};

}  // namespace ndarena::heap
