#include "segment/segment.hpp"

#include <algorithm>
#include <cstring>

namespace ndarena::segment {
namespace {

constexpr std::uint64_t small_capacity = std::uint64_t{16} << 20;

error refuse(errc code, const std::string& what, const std::string& path) {
    return {code, 0, what, path};
}

bool plausible(const file_header& h) noexcept {
    return h.granule_shift == granule_shift && h.second_level_log2 == second_level_log2 &&
           h.first_level_count == first_level_count && h.undo_entry_count == undo_entry_count &&
           h.radix_shift == radix_shift && h.chunk_shift >= 6 && h.chunk_shift <= 16 &&
           h.slot_count >= 64 && h.slot_count <= max_slots && h.slot_count % 64 == 0 &&
           h.transit_count >= 64 && h.transit_count <= (1U << 24) &&
           base::is_power_of_two(h.alignment) && h.alignment <= max_alignment;
}

}  // namespace

geometry geometry::for_capacity(std::uint64_t capacity) noexcept {
    geometry geo;
    if (capacity < small_capacity) {
        geo.chunk_shift = 7;
        geo.slot_count = 64;
        geo.transit_count = 128;
    }
    return geo;
}

std::uint64_t geometry::transit_offset() const noexcept {
    return slots_offset() + base::align_up(slot_count * sizeof(slot_entry), format_page);
}

std::uint64_t geometry::data_offset() const noexcept {
    return transit_offset() + base::align_up(transit_count * sizeof(transit_token), format_page);
}

std::uint64_t geometry::chunk_bytes() const noexcept {
    const std::uint64_t bytes =
        records_per_chunk() * sizeof(block_record) + slot_count * row_bytes();
    return base::align_up(bytes, format_page);
}

void make_header(file_header& header, const geometry& geo, std::uint64_t alignment,
                 const std::array<std::uint8_t, 16>& uuid, std::uint64_t created,
                 std::uint64_t features_compatible) noexcept {
    std::memset(static_cast<void*>(&header), 0, sizeof header);
    header.magic = segment_magic;
    header.byte_order = byte_order_mark;
    header.version = format_version;
    header.features_compatible = features_compatible;
    header.uuid = uuid;
    header.created = created;
    header.alignment = alignment;
    header.granule_shift = granule_shift;
    header.chunk_shift = geo.chunk_shift;
    header.slot_count = geo.slot_count;
    header.transit_count = geo.transit_count;
    header.second_level_log2 = second_level_log2;
    header.first_level_count = first_level_count;
    header.undo_entry_count = undo_entry_count;
    header.radix_shift = radix_shift;
    header.root_offset = {format_page, 2 * format_page};
    header.control_offset = geo.control_offset();
    header.heads_offset = geo.heads_offset();
    header.undo_offset = geo.undo_offset();
    header.radix_offset = geo.radix_offset();
    header.slots_offset = geo.slots_offset();
    header.transit_offset = geo.transit_offset();
    header.data_offset = geo.data_offset();
    header.crc = base::crc32c(&header, offsetof(file_header, crc));
}

result<void> check_header(const file_header& header, bool writable, geometry& geo,
                          const std::string& path) {
    if (header.magic != segment_magic) {
        return refuse(errc::format,
                      "not an arena: the bytes at offset 0 are not ndarena's magic number", path);
    }
    if (header.byte_order != byte_order_mark) {
        return refuse(errc::format, "the arena was written on a host of another byte order", path);
    }
    if (header.version != format_version) {
        return refuse(errc::format,
                      "the arena has format version " + std::to_string(header.version) +
                          ", this build of ndarena reads version " +
                          std::to_string(format_version) + "; use a matching release",
                      path);
    }
    if (header.crc != base::crc32c(&header, offsetof(file_header, crc))) {
        return refuse(errc::corruption,
                      "the header page is damaged (checksum at offset 4092 does not match); "
                      "restore the file from a copy",
                      path);
    }
    if (header.features_incompatible != 0) {
        return refuse(errc::format, "the arena uses features of a newer ndarena; update", path);
    }
    if (writable && header.features_read_only != 0) {
        return refuse(errc::format,
                      "a newer ndarena wrote this arena; this one may only read it (mode 'r')",
                      path);
    }
    if (!plausible(header)) {
        return refuse(errc::corruption, "the header page holds impossible numbers", path);
    }
    geo.chunk_shift = header.chunk_shift;
    geo.slot_count = header.slot_count;
    geo.transit_count = header.transit_count;
    file_header expected{};
    make_header(expected, geo, header.alignment, header.uuid, header.created,
                header.features_compatible);
    expected.features_read_only = header.features_read_only;
    const auto* a = reinterpret_cast<const char*>(&expected);
    const auto* b = reinterpret_cast<const char*>(&header);
    if (!std::equal(a, a + offsetof(file_header, crc), b)) {
        return refuse(errc::corruption, "the header page contradicts itself", path);
    }
    return {};
}

}  // namespace ndarena::segment
