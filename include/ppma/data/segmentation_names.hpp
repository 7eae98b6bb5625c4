#pragma once
#include "ppma/core/names_begin.hpp"
// The classes of the sets that segmentation is measured on, in the order of their numbers.

#include <string>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Cityscapes' 19 classes that are trained (cityscapesscripts, helpers/labels.py).
PPMA_API const std::vector<std::string>& cityscapes_classes();

/// The 150 classes of ADE20K's scene parsing challenge: the first word that objectInfo150.txt has
/// for each, as OpenMMLab's networks name them.
PPMA_API const std::vector<std::string>& ade20k_classes();

/// The 11 classes of CamVid that SegNet and most after it take.
PPMA_API const std::vector<std::string>& camvid_classes();

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <string_view>

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::vector<std::string> split_names(std::string_view list) {
  std::vector<std::string> names;
  for (;;) {
    const std::size_t end = list.find(',');
    names.emplace_back(list.substr(0, end));
    if (end == std::string_view::npos) return names;
    list.remove_prefix(end + 1);
  }
}

}  // namespace detail

const std::vector<std::string>& cityscapes_classes() {
  static const std::vector<std::string> names = detail::split_names(
      "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,"
      "person,rider,car,truck,bus,train,motorcycle,bicycle");
  return names;
}

const std::vector<std::string>& ade20k_classes() {
  static const std::vector<std::string> names = detail::split_names(
      "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,"
      "earth,door,table,mountain,plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,"
      "mirror,rug,field,armchair,seat,fence,desk,rock,wardrobe,lamp,bathtub,railing,cushion,base,"
      "box,column,signboard,chest of drawers,counter,sand,sink,skyscraper,fireplace,refrigerator,"
      "grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,river,bridge,"
      "bookcase,blind,coffee table,toilet,flower,book,hill,bench,countertop,stove,palm,"
      "kitchen island,computer,swivel chair,boat,bar,arcade machine,hovel,bus,towel,light,truck,"
      "tower,chandelier,awning,streetlight,booth,television receiver,airplane,dirt track,apparel,"
      "pole,land,bannister,escalator,ottoman,bottle,buffet,poster,stage,van,ship,fountain,"
      "conveyer belt,canopy,washer,plaything,swimming pool,stool,barrel,basket,waterfall,tent,bag,"
      "minibike,cradle,oven,ball,food,step,tank,trade name,microwave,pot,animal,bicycle,lake,"
      "dishwasher,screen,blanket,sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,pier,"
      "crt screen,plate,monitor,bulletin board,shower,radiator,glass,clock,flag");
  return names;
}

const std::vector<std::string>& camvid_classes() {
  static const std::vector<std::string> names = detail::split_names(
      "sky,building,pole,road,pavement,tree,sign symbol,fence,car,pedestrian,bicyclist");
  return names;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
