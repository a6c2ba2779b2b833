// One suite for every resource and adaptor: whoever takes memory from it cannot
// tell which one it is.
#include "resources/foreign_functions.hpp"
#include "resources/upstreams.hpp"

#include "support/places.hpp"

#include <cstdint>
#include <random>
#include <thread>
#include <vector>

namespace ndarena::resources {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

// What the resource under test is made from.
struct surroundings {
    std::shared_ptr<counters> counts = std::make_shared<counters>();
    std::shared_ptr<strict_malloc> upstream = std::make_shared<strict_malloc>();
    test::temp_dir dir;

    resource_ptr arena(std::shared_ptr<counters> counted) const {
        heap::segment_options o;
        o.kind = heap::segment_kind::scratch;
        o.path = dir.path();
        o.capacity = 256 * mib;
        auto opened = heap::heap::open(o);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        heap::heap& h = **opened;
        return std::make_shared<arena_resource>(
            h, std::move(*opened), std::make_shared<std::atomic<bool>>(false), std::move(counted));
    }
};

struct over_malloc {
    static resource_ptr of(surroundings& s) { return s.upstream; }
};
struct over_arena {
    static resource_ptr of(surroundings& s) { return s.arena(nullptr); }
};

struct arena_itself {
    static resource_ptr make(surroundings& s) { return s.arena(s.counts); }
};
template <bool malloc, bool calloc, bool realloc, bool aligned_alloc>
struct c_functions {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<function_resource>(
            of_the_c_library(malloc, calloc, realloc, aligned_alloc), s.counts);
    }
};
template <bool reallocate>
struct extension {
    static resource_ptr make(surroundings& s) {
        auto from = std::make_shared<foreign_allocator>(of_an_extension(*s.upstream, reallocate));
        return std::make_shared<foreign_resource>(std::move(from), s.counts);
    }
};
template <class Upstream>
struct statistics {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<statistics_adaptor>(Upstream::of(s), s.counts);
    }
};
template <class Upstream, std::size_t n>
struct aligned {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<aligned_adaptor>(n, Upstream::of(s), s.counts);
    }
};
template <class Upstream>
struct limiting {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<limiting_adaptor>(std::make_shared<limit>(512 * mib),
                                                  Upstream::of(s), s.counts);
    }
};
template <class Upstream>
struct tracing {
    static resource_ptr make(surroundings& s) {
        // Few events, so that old ones are folded all the time.
        auto into = std::make_shared<trace>(500, nullptr, -1);
        return std::make_shared<tracing_adaptor>(std::move(into), Upstream::of(s), s.counts);
    }
};
template <class Upstream>
struct locked {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<locked_adaptor>(std::make_shared<std::atomic<int>>(0),
                                                Upstream::of(s), s.counts);
    }
};
template <class Upstream>
struct threshold {
    static resource_ptr make(surroundings& s) {
        return std::make_shared<threshold_adaptor>(5000, Upstream::of(s),
                                                   std::make_shared<strict_malloc>(), s.counts);
    }
};
template <class Upstream>
struct fallback {  // half of what is asked for is refused by the first
    static resource_ptr make(surroundings& s) {
        auto first = std::make_shared<strict_malloc>();
        first->refuse_from = 9000;
        return std::make_shared<fallback_adaptor>(std::move(first), Upstream::of(s), s.counts);
    }
};
template <class Upstream>
struct all_of_them {
    static resource_ptr make(surroundings& s) {
        auto within = std::make_shared<limit>(512 * mib);
        resource_ptr r = std::make_shared<limiting_adaptor>(within, Upstream::of(s), nullptr);
        r = std::make_shared<aligned_adaptor>(128, std::move(r), nullptr);
        r = std::make_shared<threshold_adaptor>(3000, std::move(r),
                                                std::make_shared<strict_malloc>(), nullptr);
        auto first = std::make_shared<strict_malloc>();
        first->refuse_from = 20000;
        r = std::make_shared<fallback_adaptor>(std::move(first), std::move(r), nullptr);
        return std::make_shared<statistics_adaptor>(std::move(r), s.counts);
    }
};

template <class Kind>
class Conformance : public ::testing::Test {
protected:
    struct piece {
        unsigned char* p;
        std::size_t nbytes;
        std::size_t alignment;
        unsigned char mark;
    };

    piece take(std::size_t nbytes, std::size_t alignment, bool zero, unsigned char mark) {
        auto* p = static_cast<unsigned char*>(made_->allocate(nbytes, alignment, zero));
        EXPECT_NE(p, nullptr);
        if (p == nullptr) {
            return {nullptr, 0, alignment, mark};
        }
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % alignment, 0U);
        for (std::size_t i = 0; zero && i < nbytes; ++i) {
            EXPECT_EQ(p[i], 0) << "byte " << i << " of " << nbytes;
        }
        std::memset(p, mark, nbytes);
        return {p, nbytes, alignment, mark};
    }
    static bool is_whole(const piece& x, std::size_t nbytes) {
        return std::all_of(x.p, x.p + nbytes, [&x](unsigned char b) { return b == x.mark; });
    }
    void give_back(const piece& x) {
        EXPECT_TRUE(is_whole(x, x.nbytes)) << x.nbytes << " bytes";
        made_->deallocate(x.p, x.nbytes, x.alignment);
    }
    void resize(piece& x, std::size_t nbytes) {
        auto* q =
            static_cast<unsigned char*>(made_->reallocate(x.p, x.nbytes, nbytes, x.alignment));
        ASSERT_NE(q, nullptr);
        x.p = q;
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(q) % x.alignment, 0U);
        EXPECT_TRUE(is_whole(x, std::min(x.nbytes, nbytes)));
        x.nbytes = nbytes;
        std::memset(q, x.mark, nbytes);
    }
    // Random requests; everything is given back.
    void live(unsigned seed, int steps) {
        std::mt19937 rng(seed);
        std::vector<piece> pieces;
        for (int i = 0; i < steps; ++i) {
            const unsigned what = rng() % 4;
            const std::size_t nbytes = 1 + rng() % (what == 0 ? 40000 : 3000);
            if (pieces.size() < 8 || what < 2) {
                const std::size_t alignment = std::size_t{16} << rng() % 9;
                pieces.push_back(take(nbytes, alignment, rng() % 2 == 0,
                                      static_cast<unsigned char>(1 + rng() % 255)));
                continue;
            }
            piece& x = pieces[rng() % pieces.size()];
            if (what == 2) {
                resize(x, nbytes);
            } else {
                give_back(x);
                x = pieces.back();
                pieces.pop_back();
            }
        }
        for (const piece& x : pieces) {
            give_back(x);
        }
    }

    surroundings around_;
    resource_ptr made_ = Kind::make(around_);
};

using Kinds = ::testing::Types<
    arena_itself, c_functions<true, false, false, false>, c_functions<true, true, false, false>,
    c_functions<true, false, true, false>, c_functions<true, true, true, true>,
    c_functions<true, false, false, true>, c_functions<false, false, false, true>,
    c_functions<false, false, true, true>, extension<false>, extension<true>,
    statistics<over_malloc>, statistics<over_arena>, aligned<over_malloc, 16>,
    aligned<over_malloc, 4096>, aligned<over_arena, 64>, aligned<over_arena, 4096>,
    limiting<over_malloc>, limiting<over_arena>, locked<over_malloc>, locked<over_arena>,
    threshold<over_malloc>, threshold<over_arena>, tracing<over_malloc>, tracing<over_arena>,
    fallback<over_malloc>, fallback<over_arena>, all_of_them<over_malloc>, all_of_them<over_arena>>;
TYPED_TEST_SUITE(Conformance, Kinds);

TYPED_TEST(Conformance, ContentsAndZerosAndAlignment) {
    this->live(1, 600);
    const counters& c = *this->around_.counts;
    EXPECT_GT(c.n_allocations, 0U);
    EXPECT_EQ(c.n_allocations, c.n_deallocations);
    EXPECT_EQ(c.allocated, 0U);
    EXPECT_GT(c.peak_allocated, 8000U);
    EXPECT_EQ(c.n_failed, 0U);
}

TYPED_TEST(Conformance, Threads) {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([this, t] { this->live(100 + t, 200); });
    }
    for (auto& t : threads) {
        t.join();
    }
    EXPECT_EQ(this->around_.counts->allocated, 0U);
}

TYPED_TEST(Conformance, ARefusalChangesNothing) {
    auto x = this->take(7000, 64, false, 42);
    const std::size_t most = std::size_t{1} << 62;
    EXPECT_EQ(this->made_->allocate(most, 16, false), nullptr);
    EXPECT_EQ(this->made_->allocate(SIZE_MAX - 8, 16, true), nullptr);
    EXPECT_EQ(this->made_->reallocate(x.p, x.nbytes, most, 64), nullptr);
    EXPECT_EQ(this->around_.counts->n_failed, 3U);
    EXPECT_EQ(this->around_.counts->allocated, 7000U);
    this->give_back(x);
}

TYPED_TEST(Conformance, CountsBytesAsAskedFor) {
    const counters& c = *this->around_.counts;
    auto x = this->take(100, 16, false, 1);
    auto y = this->take(12345, 32, true, 2);
    EXPECT_EQ(c.allocated, 12445U);
    this->resize(x, 20000);
    EXPECT_EQ(c.allocated, 32345U);
    this->resize(y, 45);
    EXPECT_EQ(c.allocated, 20045U);
    EXPECT_EQ(c.peak_allocated, 32345U);
    EXPECT_EQ(c.n_allocations, 2U);
    this->give_back(x);
    this->give_back(y);
    EXPECT_EQ(c.n_deallocations, 2U);
    EXPECT_EQ(c.allocated, 0U);
}

}  // namespace
}  // namespace ndarena::resources
