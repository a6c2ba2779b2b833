// What a name stands for: an array's block, its type and shape, its attributes.
// docs/design/format.md has the bytes.
#pragma once

#include "directory/tree.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace ndarena::directory {

constexpr std::size_t max_dimensions = 64;
constexpr std::size_t max_meta_bytes = std::size_t{1} << 20;  // type, shape and attributes

struct entry {
    std::uint64_t offset = 0;  // of the array's first byte, 0: it has no bytes
    std::uint64_t nbytes = 0;
    std::uint32_t record = 0xFFFFFFFF;  // where the block's record may be
    std::uint8_t colour = 0;            // the block starts so many KiB before
    bool fortran = false;               // order of the elements, as in .npy files
    std::vector<std::int64_t> shape;
    std::string descr;  // of the type, as in .npy files
    std::string attrs;  // a JSON object in UTF-8, empty: none
};

// A block beside the tree that holds what does not fit into a node.
struct meta_block {
    std::uint64_t offset = 0;  // 0: everything is in the node
    std::uint32_t record = 0xFFFFFFFF;
    std::uint32_t nbytes = 0;
    std::uint32_t crc = 0;
};

// Type, shape and attributes as bytes.
std::string encode_meta(const entry& e);
bool decode_meta(std::string_view bytes, entry& e);
bool fits_in_node(std::string_view meta) noexcept;

// The value of a tree's key. `meta` goes into it unless `overflow` has it.
std::string encode_value(const entry& e, std::string_view meta, const meta_block& overflow);
// Everything but what lies in the overflow block; false: not a value.
bool decode_value(std::string_view value, entry& e, meta_block& overflow);

}  // namespace ndarena::directory
