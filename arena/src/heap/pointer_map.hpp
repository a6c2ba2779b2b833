// Which record an address of this process stands for.
//
// Process-private on purpose: nothing that another process can scribble on
// decides what a free does. Not synchronised; the heap's mutex guards it.
// Growing is separate from inserting (`reserve`), so that no memory is
// allocated while the segment's lock is held.
#pragma once

#include "tlsf/tlsf.hpp"

#include <cstdint>
#include <memory>

namespace ndarena::heap {

struct map_entry {
    std::uint64_t key = 0;  // payload offset; 0 marks an empty place
    std::uint64_t nbytes = 0;
    std::uint64_t serial = 0;
    std::uint32_t record = 0;
    std::uint32_t references = 0;
    std::uint8_t alignment_log2 = 0;  // that was asked for, 0 for the arena's
    bool known_elsewhere = false;     // it was sent, or a fork child that had it may have sent it
    // The block's size while nobody else can know the block, so that it may be
    // handed out again as it is; 0 once it was published, or if it is too large.
    std::uint32_t recyclable = 0;
};

// Of a power of two or 0, which counts as 1.
inline std::uint8_t log2_of(std::uint32_t alignment) noexcept {
    return alignment == 0 ? std::uint8_t{0}
                          : static_cast<std::uint8_t>(base::floor_log2(alignment));
}

class pointer_map {
public:
    bool reserve() noexcept;  // room for one more; false: out of memory
    void insert(const map_entry& entry) noexcept;
    map_entry* find(std::uint64_t key) noexcept;
    void erase(map_entry* entry) noexcept;  // one that `find` returned
    void clear() noexcept;
    std::uint64_t size() const noexcept { return size_; }
    std::uint64_t bytes() const noexcept { return bytes_; }  // sum of nbytes
    std::uint64_t peak_bytes() const noexcept { return peak_bytes_; }
    std::uint64_t n_inserted() const noexcept { return n_inserted_; }
    void resized(map_entry* entry, std::uint64_t nbytes) noexcept;

    template <class F>
    void for_each(F&& f) {
        for (std::uint64_t i = 0; i < capacity_; ++i) {
            if (places_[i].key != 0) {
                f(places_[i]);
            }
        }
    }

private:
    std::uint64_t home(std::uint64_t key) const noexcept {
        return (key * 0x9E3779B97F4A7C15ULL) >> shift_;
    }
    std::unique_ptr<map_entry[]> places_;
    std::uint64_t capacity_ = 0;  // a power of two, at most half full
    std::uint64_t size_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t peak_bytes_ = 0;
    std::uint64_t n_inserted_ = 0;
    unsigned shift_ = 64;
};

}  // namespace ndarena::heap
