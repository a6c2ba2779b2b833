// Which free list a block belongs to.
//
// First level: the power of two of the size; second level: 32 equal steps
// within it. Sizes below 32 granules (2 KiB) have a list each in first level 0.
#pragma once

#include "segment/segment.hpp"

#include <cstdint>

namespace ndarena::tlsf {

struct size_class {
    unsigned first;
    unsigned second;
    bool operator==(const size_class& o) const noexcept {
        return first == o.first && second == o.second;
    }
};

// Class of a block of `size` bytes (a positive multiple of the granule). All
// blocks of a class are at least as large as the class's smallest size.
inline size_class class_of(std::uint64_t size) noexcept {
    const std::uint64_t granules = size >> segment::granule_shift;
    if (granules < segment::second_level_count) {
        return {0, static_cast<unsigned>(granules)};
    }
    const unsigned log = base::floor_log2(granules);
    return {log - segment::second_level_log2 + 1,
            static_cast<unsigned>((granules >> (log - segment::second_level_log2)) &
                                  (segment::second_level_count - 1))};
}

// The first class all of whose blocks hold `size` bytes.
inline size_class class_that_holds(std::uint64_t size) noexcept {
    const std::uint64_t granules = size >> segment::granule_shift;
    if (granules >= segment::second_level_count) {
        const unsigned log = base::floor_log2(granules);
        const std::uint64_t step = std::uint64_t{1} << (log - segment::second_level_log2);
        return class_of((granules + step - 1) << segment::granule_shift);
    }
    return class_of(size);
}

// Requests of this size and more are whole pages, so that punching, advising
// and flushing a block touch no neighbour.
constexpr std::uint64_t page_block_threshold = std::uint64_t{64} << 10;

inline std::uint64_t block_size_for(std::uint64_t nbytes) noexcept {
    if (nbytes >= page_block_threshold) {
        return base::align_up(nbytes, segment::format_page);
    }
    return nbytes == 0 ? segment::granule : base::align_up(nbytes, segment::granule);
}

}  // namespace ndarena::tlsf
