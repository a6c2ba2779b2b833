// Heaps for tests, and contents that can be recognised.
#pragma once

#include "heap/heap.hpp"

#include "support/anonymous.hpp"
#include "support/build.hpp"
#include "support/places.hpp"
#include "support/process.hpp"

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace ndarena::heap {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;

// Fills memory with bytes that depend on `seed` and on the place in the block.
inline void fill(void* p, std::uint64_t size, std::uint64_t seed) {
    auto* bytes = static_cast<unsigned char*>(p);
    for (std::uint64_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<unsigned char>(seed * 31 + i + (i >> 8));
    }
}
inline bool holds(const void* p, std::uint64_t size, std::uint64_t seed) {
    const auto* bytes = static_cast<const unsigned char*>(p);
    for (std::uint64_t i = 0; i < size; ++i) {
        if (bytes[i] != static_cast<unsigned char>(seed * 31 + i + (i >> 8))) {
            return false;
        }
    }
    return true;
}
inline bool is_zero(const void* p, std::uint64_t size) {
    const auto* bytes = static_cast<const unsigned char*>(p);
    for (std::uint64_t i = 0; i < size; ++i) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

inline std::string findings_of(heap& h) {
    std::string all;
    for (const auto& finding : h.check()) {
        all += finding + "\n";
    }
    return all;
}

class HeapTest : public ::testing::Test {
protected:
    static segment_options file(const std::string& path, open_mode mode,
                                std::uint64_t capacity = 0) {
        segment_options o;
        o.kind = segment_kind::file;
        o.mode = mode;
        o.path = path;
        o.capacity = capacity;
        return o;
    }
    static segment_options buffer(void* p, std::uint64_t size) {
        segment_options o;
        o.kind = segment_kind::buffer;
        o.buffer = p;
        o.buffer_size = size;
        return o;
    }
    static std::shared_ptr<heap> open(const segment_options& options) {
        auto opened = heap::open(options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return opened ? *opened : nullptr;
    }
    std::shared_ptr<heap> scratch(std::uint64_t capacity = 256 * mib, std::uint64_t alignment = 0) {
        segment_options o;
        o.path = dir_.path();
        o.capacity = capacity;
        o.alignment = alignment;
        return open(o);
    }
    std::shared_ptr<heap> create(std::uint64_t capacity = 256 * mib) {
        return open(file(path_, open_mode::exclusive, capacity));
    }
    std::shared_ptr<heap> attach() { return open(file(path_, open_mode::read_write)); }

    test::temp_dir dir_;
    std::string path_ = dir_ / "arena";
};

}  // namespace ndarena::heap
