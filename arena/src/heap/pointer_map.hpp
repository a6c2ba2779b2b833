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
    std::uint32_t alignment = 0;  // that was asked for, 0 for the arena's
};

class pointer_map {
public:
    bool reserve() noexcept;  // room for one more; false: out of memory
    void insert(const map_entry& entry) noexcept;
    map_entry* find(std::uint64_t key) noexcept;
    void erase(map_entry* entry) noexcept;  // one that `find` returned
    void clear() noexcept;
    std::uint64_t size() const noexcept { return size_; }
    std::uint64_t bytes() const noexcept { return bytes_; }  // sum of nbytes
    void resized(map_entry* entry, std::uint64_t nbytes) noexcept;

    template <class F>
    void for_each(F&& f) const {
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
    unsigned shift_ = 64;
};

}  // namespace ndarena::heap
