// Heaps whose blocks have names, for tests.
#pragma once

#include "heap/fixture.hpp"

#include "directory/store.hpp"

#include <map>

namespace ndarena::directory {

using heap::fill;
using heap::holds;
using heap::kib;
using heap::mib;

class StoreTest : public heap::HeapTest {
protected:
    using heap_ptr = std::shared_ptr<heap::heap>;

    static heap_ptr open_names(const heap::segment_options& options) {
        auto opened = open_heap(options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return opened ? *opened : nullptr;
    }
    heap_ptr create_names(std::uint64_t capacity = 8 * mib) {
        return open_names(file(path_, heap::open_mode::exclusive, capacity));
    }
    heap_ptr open_names(heap::open_mode mode) { return open_names(file(path_, mode)); }

    // An array of bytes that depend on `seed`, under a name.
    static result<void> put(heap::heap& h, const std::string& name, std::uint64_t nbytes,
                            std::uint64_t seed) {
        void* p = h.allocate(nbytes, 0, false);
        if (p == nullptr) {
            return error{errc::no_memory, 0, h.refusal(), {}};
        }
        fill(p, nbytes, seed);
        entry e;
        e.nbytes = nbytes;
        e.shape = {static_cast<std::int64_t>(nbytes)};
        e.descr = "'|u1'";
        auto done = store::of(h).put(name, e, p, true);
        h.deallocate(p);
        return done;
    }
    static void put_surely(heap::heap& h, const std::string& name, std::uint64_t nbytes,
                           std::uint64_t seed) {
        auto done = put(h, name, nbytes, seed);
        ASSERT_TRUE(done) << done.err().message;
    }
    // Whether the name has the array that `put` made of the seed.
    static bool has(heap::heap& h, const std::string& name, std::uint64_t nbytes,
                    std::uint64_t seed) {
        entry e;
        bool found = false;
        reader_pin pin;
        auto p = store::of(h).hold(name, e, found, pin);
        if (!p || !found || e.nbytes != nbytes) {
            return false;
        }
        const bool right = holds(*p, nbytes, seed);
        if (!pin) {
            EXPECT_TRUE(h.deallocate(*p));
        }
        return right;
    }
    static bool is_there(heap::heap& h, const std::string& name) {
        entry e;
        auto found = store::of(h).find(name, e);
        EXPECT_TRUE(found) << (found ? "" : found.err().message);
        return found && *found;
    }
    static std::string all_findings(heap::heap& h) {
        std::string all = heap::findings_of(h);
        for (const auto& finding : store::of(h).check()) {
            all += finding + "\n";
        }
        return all;
    }
    static std::uint64_t count(heap::heap& h) {
        auto n = store::of(h).count();
        EXPECT_TRUE(n) << (n ? "" : n.err().message);
        return n ? *n : 0;
    }
};

}  // namespace ndarena::directory
