# What `cmake --install` writes: headers, both libraries, the command, and how CMake and pkg-config
# find them. Every path in the package is relative to itself, so the tree may be moved.
include(CMakePackageConfigHelpers)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/attune DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS attune attune_static EXPORT attuneTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET attune_cli)
  install(TARGETS attune_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # What `attune bench --device cuda --peers` runs.
  install(PROGRAMS ${PROJECT_SOURCE_DIR}/bench/gpu_peers.py ${PROJECT_SOURCE_DIR}/bench/gpu_case.py
                   ${PROJECT_SOURCE_DIR}/bench/gpu_table.py ${PROJECT_SOURCE_DIR}/bench/attune_abi.py
          DESTINATION ${CMAKE_INSTALL_DATADIR}/attune/bench)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(attune_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/attune)
install(EXPORT attuneTargets NAMESPACE attune:: DESTINATION ${attune_cmake_dir})
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/attuneConfig.cmake.in ${PROJECT_BINARY_DIR}/attuneConfig.cmake
  INSTALL_DESTINATION ${attune_cmake_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the API.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attuneConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attuneConfig.cmake
              ${PROJECT_BINARY_DIR}/attuneConfigVersion.cmake
        DESTINATION ${attune_cmake_dir})

# pkg-config knows where its own file lies; from there the prefix is some levels up.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(attune_pc_prefix "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH attune_pc_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" attune_pc_up "${attune_pc_up}")
  set(attune_pc_prefix "\${pcfiledir}/${attune_pc_up}")
endif()
foreach(dir LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(attune_pc_${dir} "${CMAKE_INSTALL_${dir}}")
  else()
    set(attune_pc_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(${PROJECT_SOURCE_DIR}/cmake/attune.pc.in ${PROJECT_BINARY_DIR}/attune.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/attune.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
