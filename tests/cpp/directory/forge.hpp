// Writes nodes by docs/design/format.md alone, without the code under test, and
// as wrong as a test wants them, with a checksum that fits.
#pragma once

#include "directory/fixture.hpp"

#include <cstring>

namespace ndarena::directory {

template <class T>
void put(page& node, std::size_t at, T value) {
    std::memcpy(node.data() + at, &value, sizeof value);
}
template <class T>
T get(const page& node, std::size_t at) {
    T value;
    std::memcpy(&value, node.data() + at, sizeof value);
    return value;
}

// Makes the checksum fit again.
inline void sign(page& node) { put(node, 4092, base::crc32c(node.data(), 4092)); }

struct forged_child {
    std::string separator;
    std::uint64_t offset;
    std::uint64_t keys;
};

class forge {
public:
    using leaf_entry = std::pair<std::string, std::string>;

    static page leaf(std::uint64_t offset, const std::vector<leaf_entry>& entries) {
        std::vector<std::string> parts;
        for (const auto& [key, value] : entries) {
            parts.push_back(number<std::uint16_t>(key.size()) +
                            number<std::uint16_t>(value.size()) + key + value);
        }
        return node(offset, 0, entries.size(), parts);
    }
    static page inner(std::uint64_t offset, std::uint8_t level,
                      const std::vector<forged_child>& children) {
        std::vector<std::string> parts;
        std::uint64_t keys = 0;
        for (const forged_child& c : children) {
            parts.push_back(number<std::uint16_t>(c.separator.size()) +
                            number<std::uint32_t>(page_store::record_of(c.offset)) +
                            number<std::uint64_t>(c.offset) + number<std::uint64_t>(c.keys) +
                            c.separator);
            keys += c.keys;
        }
        return node(offset, level, keys, parts);
    }

private:
    template <class T>
    static std::string number(std::uint64_t value) {
        const T narrow = static_cast<T>(value);
        return {reinterpret_cast<const char*>(&narrow), sizeof narrow};
    }
    static page node(std::uint64_t offset, std::uint8_t level, std::uint64_t keys,
                     const std::vector<std::string>& parts) {
        page bytes{};
        std::memcpy(bytes.data(), "NDANODE\x1a", 8);
        std::memcpy(bytes.data() + 8, test_identity().uuid.data(), 16);
        put(bytes, 24, offset);
        put(bytes, 32, keys);
        put(bytes, 40, level);
        put(bytes, 42, static_cast<std::uint16_t>(parts.size()));
        std::size_t at = 64 + 2 * parts.size();
        for (std::size_t i = 0; i < parts.size(); ++i) {
            put(bytes, 64 + 2 * i, static_cast<std::uint16_t>(at));
            std::memcpy(bytes.data() + at, parts[i].data(), parts[i].size());
            at += parts[i].size();
        }
        put(bytes, 44, static_cast<std::uint16_t>(at));
        sign(bytes);
        return bytes;
    }
};

}  // namespace ndarena::directory
