#include "directory/source.hpp"

#include <cstring>

namespace ndarena::directory {

error segment_source::damaged(const std::string& what) const {
    return {errc::corruption, 0, "the directory of names is damaged: " + what, seg_.path()};
}

result<void> segment_source::copy(std::uint64_t offset, void* into, std::size_t size) const {
    if (offset % segment::granule != 0 || !covers(offset, size)) {
        return damaged("it leads to offset " + std::to_string(offset) +
                       ", outside the arena (was the file truncated?)");
    }
    const base::overtaken_reads quiet;
    std::memcpy(into, seg_.base() + offset, size);
    return {};
}

result<void> segment_source::read_meta(const meta_block& where, entry& e) const {
    std::string bytes(where.nbytes, '\0');
    if (auto ok = copy(where.offset, bytes.data(), bytes.size()); !ok) {
        return ok;
    }
    if (base::crc32c(bytes.data(), bytes.size()) != where.crc || !decode_meta(bytes, e)) {
        return damaged("the description at offset " + std::to_string(where.offset) +
                       " has a wrong checksum");
    }
    return {};
}

result<void> segment_source::read_entry(std::string_view value, entry& e) const {
    meta_block overflow;
    if (!decode_value(value, e, overflow)) {
        return damaged("a name has a value of an unknown kind");
    }
    if (overflow.offset != 0) {
        if (auto ok = read_meta(overflow, e); !ok) {
            return ok;
        }
    }
    if (e.offset == 0 ? e.nbytes != 0 : !covers(e.offset, e.nbytes)) {
        return damaged("an array at offset " + std::to_string(e.offset) +
                       " does not lie in the arena (was the file truncated?)");
    }
    return {};
}

}  // namespace ndarena::directory
