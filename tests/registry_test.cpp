// The registry with a stand-in for the compiler: what is asked of whom, and how often.
#include "registry/registry.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "cubin/process.h"
#include "tests/support/cubins.h"

namespace attune {
namespace {

using testing::counting_options;
using testing::first_row;
using testing::Notices;

TEST(Registry, CompilesOnceForManyThreads) {
  std::atomic<int> compiled{0};
  Registry registry(counting_options(compiled));
  const KernelSpec spec = first_row();
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<const Image>> images(8);
  for (auto& image : images) {
    threads.emplace_back([&] {
      const auto found = registry.image_for(spec, 90);
      if (found.ok()) image = *found;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(compiled, 1);
  for (const auto& image : images) {
    ASSERT_TRUE(image);
    EXPECT_EQ(image, images.front());
  }
  EXPECT_EQ(images.front()->id, id_of(spec));
  EXPECT_EQ(images.front()->origin, Origin::compiler);
  EXPECT_EQ(registry.images().size(), 1U);
}

TEST(Registry, FindsOnDiskWhatAnotherProcessCompiled) {
  const TemporaryFolder folder;
  std::atomic<int> compiled{0};
  const KernelSpec spec = first_row();
  std::vector<std::byte> cubin;
  for (const Origin origin : {Origin::compiler, Origin::disk}) {
    Registry registry(counting_options(compiled, folder.path()));
    const auto image = registry.image_for(spec, 80);
    ASSERT_TRUE(image.ok()) << image.status().message();
    EXPECT_EQ((*image)->origin, origin);
    if (origin == Origin::compiler) cubin = (*image)->cubin;
    EXPECT_EQ((*image)->cubin, cubin);
  }
  EXPECT_EQ(compiled, 1);
}

TEST(Registry, JitOffNamesTheIdAndHowToBuildIt) {
  std::atomic<int> compiled{0};
  Registry::Options options = counting_options(compiled);
  options.may_compile = false;
  Registry registry(std::move(options));
  const KernelSpec spec = first_row();
  const auto image = registry.image_for(spec, 90);
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.status().code(), Code::unsupported);
  EXPECT_EQ(image.status().message(),
            id_of(spec) +
                " is not compiled for sm_90, and ATTUNE_JIT=off forbids compiling it now. "
                "Build it ahead of time with `attune compile --spec " +
                id_of(spec) +
                " --arch sm_90 -o kernels.attune` and name that file in ATTUNE_BUNDLE");
  EXPECT_EQ(compiled, 0);
}

TEST(Registry, WithoutACompilerTheDiskStillServes) {
  const TemporaryFolder folder;
  std::atomic<int> compiled{0};
  const KernelSpec spec = first_row();
  {
    Registry registry(counting_options(compiled, folder.path()));
    ASSERT_TRUE(registry.image_for(spec, 80).ok());
  }
  Registry::Options none = counting_options(compiled, folder.path());
  none.toolchain = [] { return Status(Code::unsupported, "there is no compiler"); };
  Registry registry(std::move(none));
  // A cubin for sm_80 runs on sm_86, but not on sm_90.
  const auto same_major = registry.image_for(spec, 86);
  ASSERT_TRUE(same_major.ok()) << same_major.status().message();
  EXPECT_EQ((*same_major)->target.arch, 80);
  const auto other_major = registry.image_for(spec, 90);
  ASSERT_FALSE(other_major.ok());
  EXPECT_EQ(other_major.status().message(),
            id_of(spec) + " is not compiled for sm_90, and there is no compiler");
  EXPECT_EQ(compiled, 1);
}

TEST(Registry, ARefusalIsNotRemembered) {
  std::atomic<int> compiled{0};
  Registry::Options options = counting_options(compiled);
  int asked = 0;
  const auto real = options.compile;
  options.compile = [&](const KernelSpec& spec, const Target& target,
                        const Toolchain& toolchain) -> Expected<Cubin> {
    if (asked++ == 0) return Status(Code::internal, "not today");
    return real(spec, target, toolchain);
  };
  Registry registry(std::move(options));
  const auto first = registry.image_for(first_row(), 80);
  ASSERT_FALSE(first.ok());
  EXPECT_EQ(first.status().message(), "not today");
  EXPECT_TRUE(registry.image_for(first_row(), 80).ok());
}

TEST(Registry, RefusesADeviceOutsideTheRow) {
  std::atomic<int> compiled{0};
  Registry registry(counting_options(compiled));
  const auto image = registry.image_for(first_row(), 75);
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.status().message(), id_of(first_row()) + " does not run on sm_75");
}

TEST(Registry, ADamagedEntryIsSaidAndCompiledAnew) {
  const TemporaryFolder folder;
  std::atomic<int> compiled{0};
  {
    Registry registry(counting_options(compiled, folder.path()));
    ASSERT_TRUE(registry.image_for(first_row(), 80).ok());
  }
  testing::flip_byte(testing::only_entry(folder.path()) / kCubinFile, 100);
  const Notices notices;
  Registry registry(counting_options(compiled, folder.path()));
  const auto image = registry.image_for(first_row(), 80);
  ASSERT_TRUE(image.ok()) << image.status().message();
  EXPECT_EQ((*image)->origin, Origin::compiler);
  EXPECT_EQ(compiled, 2);
  ASSERT_EQ(notices.texts().size(), 1U);
  EXPECT_NE(notices.texts()[0].find("damaged entry"), std::string::npos);
  EXPECT_NE(notices.texts()[0].find(id_of(first_row())), std::string::npos);
}

}  // namespace
}  // namespace attune
