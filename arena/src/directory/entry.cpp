#include "directory/entry.hpp"

#include <cstring>

namespace ndarena::directory {
namespace {

constexpr std::uint8_t value_version = 1;
constexpr std::uint8_t flag_fortran = 1;
constexpr std::uint8_t flag_overflow = 2;

struct value_head {
    std::uint8_t version;
    std::uint8_t flags;
    std::uint8_t colour;
    std::uint8_t reserved;
    std::uint32_t record;
    std::uint64_t offset;
    std::uint64_t nbytes;
};
static_assert(sizeof(value_head) == 24);

struct value_overflow {
    std::uint64_t offset;
    std::uint32_t record;
    std::uint32_t nbytes;
    std::uint32_t crc;
    std::uint32_t reserved;
};
static_assert(sizeof(value_overflow) == 24);

struct meta_head {
    std::uint16_t dimensions;
    std::uint16_t reserved;
    std::uint32_t descr_bytes;
};
static_assert(sizeof(meta_head) == 8);

template <class T>
void append(std::string& bytes, const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
bool take(std::string_view& bytes, T& value) noexcept {
    if (bytes.size() < sizeof value) {
        return false;
    }
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes.remove_prefix(sizeof value);
    return true;
}

}  // namespace

std::string encode_meta(const entry& e) {
    std::string bytes;
    append(bytes, meta_head{static_cast<std::uint16_t>(e.shape.size()), 0,
                            static_cast<std::uint32_t>(e.descr.size())});
    for (const std::int64_t n : e.shape) {
        append(bytes, n);
    }
    bytes += e.descr;
    bytes += e.attrs;
    return bytes;
}

bool decode_meta(std::string_view bytes, entry& e) {
    meta_head head{};
    if (!take(bytes, head) || head.dimensions > max_dimensions) {
        return false;
    }
    e.shape.resize(head.dimensions);
    for (std::int64_t& n : e.shape) {
        if (!take(bytes, n) || n < 0) {
            return false;
        }
    }
    if (head.descr_bytes > bytes.size()) {
        return false;
    }
    e.descr = bytes.substr(0, head.descr_bytes);
    e.attrs = bytes.substr(head.descr_bytes);
    return true;
}

bool fits_in_node(std::string_view meta) noexcept {
    return sizeof(value_head) + meta.size() <= max_value_bytes;
}

std::string encode_value(const entry& e, std::string_view meta, const meta_block& overflow) {
    std::string bytes;
    const bool apart = overflow.offset != 0;
    append(bytes, value_head{value_version,
                             static_cast<std::uint8_t>((e.fortran ? flag_fortran : 0) |
                                                       (apart ? flag_overflow : 0)),
                             e.colour, 0, e.record, e.offset, e.nbytes});
    if (apart) {
        append(bytes,
               value_overflow{overflow.offset, overflow.record, overflow.nbytes, overflow.crc, 0});
    } else {
        bytes += meta;
    }
    return bytes;
}

bool decode_value(std::string_view value, entry& e, meta_block& overflow) {
    value_head head{};
    if (!take(value, head) || head.version != value_version) {
        return false;
    }
    e.fortran = (head.flags & flag_fortran) != 0;
    e.colour = head.colour;
    e.record = head.record;
    e.offset = head.offset;
    e.nbytes = head.nbytes;
    overflow = {};
    if ((head.flags & flag_overflow) == 0) {
        return decode_meta(value, e);
    }
    value_overflow apart{};
    if (!take(value, apart) || apart.offset == 0 || apart.nbytes > max_meta_bytes) {
        return false;
    }
    overflow = {apart.offset, apart.record, apart.nbytes, apart.crc};
    return true;
}

}  // namespace ndarena::directory
